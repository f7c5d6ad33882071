-- What every script of a queue on a cluster begins with, before names.lua. Two more KEYS stand behind all others:
--   the last but one: air HASH, redis_key -> "UNTIL OWNER STAMP" of a write that was confirmed and not settled: until when it
--     may come in its hash's slot; the claim that writes, or "*" where several may; the stamp of its item
--   the last: one that never exists. While a slot moves key by key, a script that declares it is answered with TRYAGAIN. A
--     script all of whose keys are there would run, and be aborted half-way, its writes kept, once it has emptied one of them.
-- Hosted servers take 3,999 arguments: where there would be more, they come as a mark, their lengths, and all in one.

local AIR = KEYS[#KEYS - 1]
KEYS[#KEYS], KEYS[#KEYS - 1] = nil, nil

do
  local MARK = "embedqueue: all in one" -- cluster/scripts.py has the same
  for _, at in ipairs({ 1, 4 }) do
    if ARGV[at] == MARK then
      local last, lengths, all, from, n = ARGV[at + 3], ARGV[at + 1], ARGV[at + 2], 1, at - 1
      for length in string.gmatch(lengths, "%d+") do
        n = n + 1
        ARGV[n], from = string.sub(all, from, from + length - 1), from + length
      end
      if last then
        ARGV[n + 1] = last
      end
      break
    end
  end
end

