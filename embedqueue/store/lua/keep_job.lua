-- Keep what is known of a batch job, or forget it; only whoever looks after the jobs may.
--
-- KEYS[15] jobs HASH; KEYS[16] job:NAME HASH
-- ARGV[1] who; ARGV[2] name of the job, or of another field of jobs; ARGV[3] its JSON, or "" to forget it
-- ARGV[4] "1": of a job that has ended, which has no items any more
-- ARGV[5] JSON: in what whoever makes vectors has to agree with others, by name, which is kept with this; or ""
-- ARGV[6..] two for each line of it: redis_key; digest of its text
-- Answer: "kept", or "lost": somebody else looks after the jobs by now, or has ended this one, and nothing has changed

local JOBS_KEY, LINES = KEYS[FIRST_FURTHER_KEY], KEYS[FIRST_FURTHER_KEY + 1]
local who = string.match(redis.call("HGET", JOBS_KEY, ":lead") or "", "^(%S+) ")
if who ~= ARGV[1] then
  return "lost"
end
local kept = ARGV[3] ~= "" and string.sub(ARGV[2], 1, 1) ~= ":" and redis.call("HGET", JOBS_KEY, ARGV[2])
local over = { ended = true, over = true }
if kept and over[cjson.decode(kept).state] and not over[cjson.decode(ARGV[3]).state] then
  return "lost" -- whoever looked after the jobs meanwhile has ended it: it must not be created any more
end
if ARGV[3] == "" then
  redis.call("HDEL", JOBS_KEY, ARGV[2])
else
  redis.call("HSET", JOBS_KEY, ARGV[2], ARGV[3])
end
if ARGV[3] == "" or ARGV[4] == "1" then
  redis.call("DEL", LINES)
end
local ours = (ARGV[5] or "") ~= "" and cjson.decode(ARGV[5])
if ours and #differing(ours, false) == 0 then
  differing(ours, true)
end
for at = 6, #ARGV, CHUNK do
  redis.call("HSET", LINES, unpack(ARGV, at, math.min(at + CHUNK - 1, #ARGV)))
end
return "kept"
