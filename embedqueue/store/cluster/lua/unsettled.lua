-- Tell of which keys a write was confirmed and never settled, and for how long one may still come.
--
-- ARGV[1..] redis_keys
-- Answer: two values for each: the stamp of the item that was to be written, or "": it is not the key's one live item; the ms
--   for which a write is in the air, or 0
-- Where an item was confirmed twice, what notes that stays when it is settled: it must be nobody's who comes later.

local answer = {}
for i = 1, #ARGV do
  local ends, _, stamp = air.read(redis.call("HGET", AIR, ARGV[i]))
  local live = stamp and string.match(redis.call("HGET", LATEST, ARGV[i]) or "", "^%d+")
  answer[#answer + 1] = stamp == live and stamp or ""
  answer[#answer + 1] = ends and math.ceil((ends - now) * 1000) or 0
end
return answer
