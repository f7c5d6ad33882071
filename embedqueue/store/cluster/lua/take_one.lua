-- Look a vector up in the cache, and reserve it if it is missing. It runs in the slot of the entry.
--
-- KEYS[1] the entry; ARGV[1] owner, the name of the claim; ARGV[2] ms for which a reservation lasts, should its holder die
-- ARGV[3] "1": the caller may not fill it
-- Answer: as take_cached.lua has it for one entry

local SLACK = 1 -- seconds; prelude.lua has the same
local mine = "busy " .. ARGV[1] -- a try whose answer was lost has reserved it
local value = redis.call("GET", KEYS[1])
local reserved = value and string.sub(value, 1, 5) == "busy "
local lease = reserved and tonumber(string.match(value, "/([%d.]+):$"))
local most = reserved and ((lease or ARGV[2] / 1000) + SLACK) * 1000 -- the holder's lease may not be ours
if value and value ~= mine and not (reserved and redis.call("PTTL", KEYS[1]) > most) then
  return reserved and "busy" or value
elseif ARGV[3] == "1" then
  redis.call("DEL", KEYS[1])
  return "paused"
end
redis.call("SET", KEYS[1], mine, "PX", ARGV[2])
return ""
