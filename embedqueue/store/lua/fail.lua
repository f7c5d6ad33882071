-- The provider failed: release the items of a call, and stop all claiming for a while, longer each time in a row.
--
-- ARGV[1] owner of the claim whose call failed; ARGV[2] ms of the first pause, doubled each time; ARGV[3] most ms
-- ARGV[4] least ms, which the provider asks for; ARGV[5] why, for people
-- ARGV[6..] two for each item of the call: owner of its claim; member
-- Answer: the ms that the pause still lasts
-- Calls that fail side by side count once: only a probe's failure, or the first failure, raises the level. Where none of
-- the items is held any more, and the claim is no probe, this was done before or is too late, and there is no new pause.

local owner, first_ms, most_ms, least_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local probing = redis.call("GET", PROBE)
local probe = probing == owner
local held, ms = redis.call("GET", PAUSE), redis.call("PTTL", PAUSE)

local keys = {}
for i = 6, #ARGV, 2 do
  local key = key_of(ARGV[i + 1])
  if release(ARGV[i + 1], ARGV[i]) == 1 then
    keys[#keys + 1] = key
  end
end
if #keys == 0 and not probe then
  return math.max(0, pause_left())
end

if probe then
  redis.call("DEL", PROBE)
end
if probe or not (held or probing) then
  local level = redis.call("INCR", LEVEL)
  local wanted_ms = math.min(most_ms, math.max(least_ms, first_ms * 2 ^ math.min(level - 1, 30)))
  if not held or (ms >= 0 and ms < wanted_ms) then -- what people have set holds for as long as it is longer
    ms = wanted_ms
    pause(ARGV[5], ms)
  end
elseif held and ms >= 0 and ms < least_ms then
  ms = math.min(most_ms, least_ms)
  pause(held, ms)
elseif not held then
  ms = redis.call("PTTL", PROBE)
end
-- The level outlives the pause, so that whoever comes next knows to probe.
redis.call("PEXPIRE", LEVEL, math.ceil(math.max(ms, 0) + 2 * most_ms))

tell("unserved", owner, keys, ARGV[5])
notice("wake", owner, "") -- items wait again, and there is a pause
if probe then
  notice("paused", owner, cjson.encode({ reason = ARGV[5] }))
end
return math.ceil(ms)
