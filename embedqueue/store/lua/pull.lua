-- Put items into the live lane that are in batch jobs, or wait for one: a slice at a time.
--
-- ARGV[1] what waits for jobs, as job_bound() takes it
-- ARGV[2] those that are due within so many seconds; or "all", those that wait for a job included
-- ARGV[3] most items; ARGV[4] most bytes of members, about
-- Answer: how many went there; 0 at the end
-- Keeps I4. No delivery is counted. The job goes on: what it brings of them is not written any more.

local most_items, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local base, off, stamp = job_settings()
local interval = string.match(ARGV[1], "^%S+ (%S+)$")
local bound = job_bound(ARGV[1], base, off, stamp) or now
local most = ARGV[2] == "all" and "+inf"
  or seconds_text(JOBS + now + tonumber(ARGV[2]) - tonumber(base or interval or 0))
local back = 0
local held = read_slice(INFLIGHT, JOBS, most, most_items, most_bytes)
for i = 1, #held, 2 do
  local member = held[i]
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
  local waiting = read_slice(PENDING, "(" .. seconds_text(bound), "+inf", most_items, most_bytes)
  local scored = {}
  for i = 1, #waiting, 2 do
    scored[i], scored[i + 1] = seconds_text(bound), waiting[i]
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
