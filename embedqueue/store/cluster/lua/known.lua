-- Tell what is known of keys in the queue's slot, before their hashes are read.
--
-- ARGV[1] JSON: in what whoever asks has to agree with the workers, by name; ARGV[2..] redis_keys
-- Answer: "1" if the books are in order and they agree, else "0"; then two values for each key: "live", something of it is
--   or a write is in the air, or "dead", or ""; the entry of latest, or ""

local in_order = strays() == 0 and #differing(cjson.decode(ARGV[1]), false) == 0
local answer, gone = { in_order and "1" or "0" }, {}
for i = 2, #ARGV do
  local value, word = live_entry(ARGV[i], gone), ""
  if value or air.read(redis.call("HGET", AIR, ARGV[i])) then
    word = "live"
  elseif redis.call("HEXISTS", INFO, ARGV[i]) == 1 then
    word = "dead"
  end
  answer[#answer + 1] = word
  answer[#answer + 1] = value or ""
end
count_down(gone)
return answer
