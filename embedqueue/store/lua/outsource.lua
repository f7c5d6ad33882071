-- Move items that wait for it into a batch job, those that are due first first. The job is kept by the same step.
--
-- KEYS[15] jobs HASH; KEYS[16] job:NAME HASH
-- ARGV[1] who looks after the jobs; ARGV[2] name of the job; ARGV[3] what is kept of it
-- ARGV[4] what waits for jobs, as job_bound() takes it; ARGV[5] fewest items that are worth a job; ARGV[6] most items
-- ARGV[7] most bytes of members, of which one may have more; ARGV[8] JSON: in what the caller has to agree with others, by name
-- ARGV[9] max_deliveries; ARGV[10] bytes of members that a budget has room for, or ""
-- Answer: {word, member, ...}
--   word "taken"; or nothing was: "few"; "paused"; "differs"; "adopt": strays come first; "lost": somebody else looks after
--   the jobs by now
-- Keeps I1: only what latest names goes into a job, and it stands in flight from then on, held by the job, whose name stands in
-- its entry of claims. Its score there is JOBS + that of before; so no claim takes it for one whose lease has run out.

local JOBS_KEY, LINES = KEYS[FIRST_FURTHER_KEY], KEYS[FIRST_FURTHER_KEY + 1]
local owner, least, most, most_bytes = "job:" .. ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local affordable = tonumber(ARGV[10]) or math.huge
if string.match(redis.call("HGET", JOBS_KEY, ":lead") or "", "^(%S+) ") ~= ARGV[1] then
  return { "lost" }
end
local kept = redis.call("HGET", JOBS_KEY, ARGV[2])
if kept and cjson.decode(kept).state ~= "planned" then
  return { "lost" } -- a copy that the network held back: the job is at the provider
end
local ours, bound = cjson.decode(ARGV[8]), job_bound(ARGV[4], job_settings())
local from = bound and "(" .. seconds_text(bound)
local meant = bound and redis.call("ZCOUNT", PENDING, from, "+inf") or 0
local word = #differing(ours, false) > 0 and "differs" or strays() > 0 and "adopt"
  or pause_left() ~= -2 and "paused" or meant < least and "few"
if word or meant == 0 then
  return { word or "few" }
end

local list = read_slice(PENDING, from, "+inf", most, most_bytes)
local members, scored, claims, lines, bytes = {}, {}, {}, {}, 0
local keys, spent = {}, false
for i = 1, #list, 2 do
  keys[#keys + 1] = key_of(list[i]) or ""
end
local latest, claimed = redis.call("HMGET", LATEST, unpack(keys)), redis.call("HMGET", CLAIMS, unpack(keys))
for i, key in ipairs(keys) do
  local member, score = list[2 * i - 1], list[2 * i]
  local _, deliveries = parse_claim(claimed[i])
  local last = deliveries > 0 and deliveries >= tonumber(ARGV[9]) - 1 -- that travels alone
  spent = bytes + #member > affordable
  if spent or bytes > 0 and bytes + #member > most_bytes then
    break
  elseif latest[i] and names(latest[i], member) and not last then
    bytes = bytes + #member
    members[#members + 1] = member
    scored[#scored + 1], scored[#scored + 2] = JOBS + tonumber(score), member
    claims[#claims + 1], claims[#claims + 2] = key, score .. " " .. deliveries .. " " .. owner
    lines[#lines + 1], lines[#lines + 2] = key, ""
  end
end
if #members == 0 or spent and #members < least then
  return { "few" }
end
redis.call("HSET", JOBS_KEY, ARGV[2], ARGV[3])
redis.call("ZREM", PENDING, unpack(members))
redis.call("ZADD", INFLIGHT, unpack(scored))
redis.call("HSET", CLAIMS, unpack(claims))
redis.call("HSET", LINES, unpack(lines))
return { "taken", unpack(members) }
