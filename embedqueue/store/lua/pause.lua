-- The provider failed: nobody claims for a while, longer each time in a row.
--
-- ARGV[1] owner of the claim that failed; ARGV[2] ms of the first pause, doubled each time; ARGV[3] most ms
-- ARGV[4] least ms (the provider's own wish); ARGV[5] why, for people; ARGV[6] JSON list of redis_keys whose call failed
-- Answer: {ms of the pause, "1" if this was the probe}
-- Calls that fail side by side count once: only a probe's failure, or the first failure, raises the level.

local owner, first_ms, most_ms, least_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local held = redis.call("GET", PAUSE)
local probe = held == "probe " .. owner
local ms = redis.call("PTTL", PAUSE)

if probe or not held then
  local level = redis.call("INCR", LEVEL)
  ms = math.min(most_ms, math.max(least_ms, first_ms * 2 ^ math.min(level - 1, 30)))
  redis.call("SET", PAUSE, ARGV[5], "PX", math.ceil(ms))
elseif ms >= 0 and ms < least_ms and string.sub(held, 1, 6) ~= "probe " then
  ms = math.min(most_ms, least_ms)
  redis.call("PEXPIRE", PAUSE, math.ceil(ms))
end
-- The level outlives the pause, so that whoever comes next knows to probe.
redis.call("PEXPIRE", LEVEL, math.ceil(math.max(ms, 0) + 2 * most_ms))

notice("unserved", owner, cjson.encode({ reason = ARGV[5], keys = cjson.decode(ARGV[6]) }))
if probe then
  notice("paused", owner, cjson.encode({ reason = ARGV[5] }))
end
return { math.ceil(ms), probe and "1" or "0" }
