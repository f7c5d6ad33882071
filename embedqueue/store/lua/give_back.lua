-- Put items of a batch job back to pending, which it has not served.
--
-- ARGV[1] name of the job; ARGV[2] what waits for jobs, as job_bound() takes it
-- ARGV[3] "live": the next live drain takes them, for a job has had its turn; "again": another job may take them
-- ARGV[4..] redis_keys
-- Answer: how many went back; what the job no longer holds stays where it is
-- Keeps I4. Their score is that of before; or, in the live lane, no later than that of the last item which is too late for a job.
-- No delivery is counted.

local owner, back = "job:" .. ARGV[1], 0
local bound = ARGV[3] == "again" and JOBS or job_bound(ARGV[2], job_settings()) or now
for i = 4, #ARGV do
  local score, deliveries, holder = parse_claim(redis.call("HGET", CLAIMS, ARGV[i]))
  local value = holder == owner and redis.call("HGET", LATEST, ARGV[i])
  local member = value and entry(value)
  if member and tonumber(redis.call("ZSCORE", INFLIGHT, member) or 0) >= JOBS then
    leave_job(member, ARGV[i], value, math.min(tonumber(score), bound), deliveries)
    back = back + 1
  end
end
if back > 0 then
  notice("wake", owner, "")
end
return back
