-- Put items into the live lane that are in batch jobs, or wait for one: a slice at a time.
--
-- ARGV[1] what waits for jobs, as job_bound() takes it
-- ARGV[2] those that are due within so many seconds; or "all", those that wait for a job included
-- Answer: how many went there; 0 at the end
-- Keeps I4. No delivery is counted. The job goes on: what it brings of them is not written any more.

local SLICE = 200 -- members, which may be long

local base, off = unpack(redis.call("HMGET", SETTINGS, "base", "economy"))
local interval = string.match(ARGV[1], "^%S+ (%S+)$")
local bound = job_bound(ARGV[1], base, off) or now
local most = ARGV[2] == "all" and "+inf"
  or seconds_text(JOBS + now + tonumber(ARGV[2]) - tonumber(base or interval or 0))
local back = 0
for _, member in ipairs(redis.call("ZRANGEBYSCORE", INFLIGHT, JOBS, most, "LIMIT", 0, SLICE)) do
  local key = key_of(member)
  local value = key and redis.call("HGET", LATEST, key)
  local score, deliveries = parse_claim(key and redis.call("HGET", CLAIMS, key))
  if value and names(value, member) then
    leave_job(member, key, value, math.min(tonumber(score or 0), bound), deliveries)
  else
    disown(member, key, value)
  end
  back = back + 1
end
if back == 0 and ARGV[2] == "all" then
  local from = "(" .. seconds_text(bound)
  local scored = {}
  for _, member in ipairs(redis.call("ZRANGEBYSCORE", PENDING, from, "+inf", "LIMIT", 0, SLICE)) do
    scored[#scored + 1], scored[#scored + 2] = seconds_text(bound), member
  end
  if #scored > 0 then
    redis.call("ZADD", PENDING, unpack(scored))
    back = #scored / 2
  end
end
if back > 0 then
  notice("wake", "", "")
end
return back
