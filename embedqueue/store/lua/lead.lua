-- Look after the batch jobs, alone: take or renew the lease of whoever does, and read what there is.
--
-- KEYS[15] jobs HASH; ARGV[1] who; ARGV[2] seconds of the lease from now on, 0 to leave it; ARGV[3] "1": only look
-- ARGV[4] JSON: in what the caller has to agree with others, by name. Whoever is at odds with them leaves the lease
-- Answer: {"1" if it is ours now, else "0"; now; who has it, or ""; until when nothing goes into jobs, or ""; all fields of
--   jobs and their values; since when whoever has it has had it without a break, or "0"}

local JOBS_KEY, seconds = KEYS[FIRST_FURTHER_KEY], tonumber(ARGV[2])
local who, ends, since = string.match(redis.call("HGET", JOBS_KEY, ":lead") or "", "^(%S+) (%S+) ?(%S*)$")
ends = tonumber(ends or 0)
local longest = 86400 -- seconds: a lease that ends later tells of a clock that was set back
local free = not who or who == ARGV[1] or ends < now or ends > now + longest
local ours = "0"
if seconds > 0 and #differing(cjson.decode(ARGV[4]), false) > 0 then
  seconds = 0 -- its calls give other vectors than the jobs of the others
end
if ARGV[3] ~= "1" and free and seconds > 0 then
  if who ~= ARGV[1] or ends < now or ends > now + longest or since == "" then
    since = seconds_text(now) -- somebody else may have had it meanwhile
  end
  redis.call("HSET", JOBS_KEY, ":lead", ARGV[1] .. " " .. seconds_text(now + seconds) .. " " .. since)
  who, ours = ARGV[1], "1"
elseif ARGV[3] ~= "1" and who == ARGV[1] then
  redis.call("HDEL", JOBS_KEY, ":lead")
  who = nil
end
if ours == "0" and free then
  who = nil -- who had it has died
end
local off = redis.call("HGET", SETTINGS, "economy") or ""
return { ours, seconds_text(now), who or "", off, redis.call("HGETALL", JOBS_KEY), who and since or "0" }
