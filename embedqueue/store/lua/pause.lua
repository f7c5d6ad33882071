-- Stop all claiming for a while because the provider failed, longer each time in a row.
--
-- ARGV[1] owner of the claim whose call failed; ARGV[2] ms of the first pause, doubled each time; ARGV[3] most ms
-- ARGV[4] least ms, which the provider asks for; ARGV[5] why, for people; ARGV[6] JSON list of the redis_keys of the call
-- Answer: the ms that the pause still lasts
-- Calls that fail side by side count once: only a probe's failure, or the first failure, raises the level.

local owner, first_ms, most_ms, least_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local probing = redis.call("GET", PROBE)
local probe = probing == owner
local held, ms = redis.call("GET", PAUSE), redis.call("PTTL", PAUSE)

local function pause(words)
  redis.call("SET", PAUSE, words, "PX", math.ceil(ms))
  redis.call("SET", OURS, math.ceil(ms) .. " " .. words, "PX", math.ceil(ms))
end

if probe then
  redis.call("DEL", PROBE)
end
if probe or not (held or probing) then
  local level = redis.call("INCR", LEVEL)
  local wanted_ms = math.min(most_ms, math.max(least_ms, first_ms * 2 ^ math.min(level - 1, 30)))
  if not held then
    ms = wanted_ms
    pause(ARGV[5])
  end
elseif held and ms >= 0 and ms < least_ms then
  ms = math.min(most_ms, least_ms)
  pause(held)
elseif not held then
  ms = redis.call("PTTL", PROBE)
end
-- The level outlives the pause, so that whoever comes next knows to probe.
redis.call("PEXPIRE", LEVEL, math.ceil(math.max(ms, 0) + 2 * most_ms))

notice("unserved", owner, cjson.encode({ reason = ARGV[5], keys = cjson.decode(ARGV[6]) }))
if probe then
  notice("paused", owner, cjson.encode({ reason = ARGV[5] }))
end
return math.ceil(ms)
