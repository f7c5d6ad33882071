-- The vectors of claimed items cannot be written where they belong: stop all claiming for a while; or that is over.
--
-- ARGV[1] owner of the claim; ARGV[2] ms of the pause, or 0: it is over; ARGV[3] its words, for people
-- ARGV[4] "again": it was so before, so that nobody shall wait for it any longer; or ""
-- ARGV[5..] redis_keys of the items, which stay in flight
-- Answer: the ms that nobody claims; less than 0 where there is no end
-- Longer pauses stay, and those that people have made. The end of such a pause is that of a probe, too: the provider is well.

local owner, ms, words = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local held, left = redis.call("GET", PAUSE), redis.call("PTTL", PAUSE)
if ms == 0 then
  if held == words then
    redis.call("DEL", PAUSE, OURS)
  end
  notice("wake", owner, "")
  return math.max(0, pause_left())
end
if not held or (left >= 0 and left < ms) then
  pause(words, ms)
end
end_probe(owner)
local keys = {}
for i = 5, #ARGV do
  keys[#keys + 1] = ARGV[i]
end
tell("unserved", owner, keys, words)
notice("wake", owner, "")
if ARGV[4] == "again" then
  notice("paused", owner, cjson.encode({ reason = words }))
end
return pause_left()
