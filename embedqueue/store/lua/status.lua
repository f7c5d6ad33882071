-- Tell how the queue stands, in one round trip.
--
-- ARGV[1] a time until which enqueued items are counted that are not finished, or "": none are
-- Answer: {now, waiting, in flight, dead, oldest score or "", next lease end or "", pause in ms or -2, its reason,
--   "1" while the provider has not yet answered again, unfinished, a time until which all unfinished were enqueued,
--   the owner of the claim that tests the provider or ""}
-- That time is later than now where the clock was set back: then some items come from the future.

local unfinished, newest = 0, now
if ARGV[1] ~= "" then
  unfinished = redis.call("ZCOUNT", PENDING, "-inf", ARGV[1])
  newest = math.max(now, redis.call("ZREVRANGE", PENDING, 0, 0, "WITHSCORES")[2] or 0)
  for _, member in ipairs(redis.call("ZRANGE", INFLIGHT, 0, -1)) do
    local key = key_of(member)
    local score = parse(key and redis.call("HGET", CLAIMS, key))
    if score and tonumber(score) <= tonumber(ARGV[1]) then
      unfinished = unfinished + 1
      newest = math.max(newest, score)
    end
  end
end
-- An idle worker asks this a few times a minute, so what cannot be there is not asked for.
local waiting, in_flight, pause_ms = redis.call("ZCARD", PENDING), redis.call("ZCARD", INFLIGHT), pause_left()
local oldest = waiting > 0 and redis.call("ZRANGE", PENDING, 0, 0, "WITHSCORES")[2] or ""
local first = in_flight > 0 and redis.call("ZRANGE", INFLIGHT, 0, 0, "WITHSCORES") or {}
local lease_end = first[2] or ""
if first[2] and outlasts(first[1], tonumber(first[2])) then
  lease_end = stamp(now) -- the clock was set back: the next claim puts it right
end
local reason = pause_ms ~= -2 and redis.call("GET", PAUSE) or ""
local probe = pause_ms ~= -2 and redis.call("GET", PROBE) or ""
return {
  stamp(now), waiting, in_flight, redis.call("ZCARD", DEAD), oldest, lease_end, pause_ms, reason,
  tostring(redis.call("EXISTS", LEVEL)), unfinished, stamp(newest + 0.000001), probe,
}
