-- Note how a named run stands, and hear what somebody wants of it.
--
-- KEYS[15] runs HASH  name -> "OWNER UNTIL SECONDS FACTS": who is at work on it; until when that holds if nothing more is
--   heard; how long that was made to hold; JSON, as store/runs.py has it. "? NAME" -> what somebody wants
-- ARGV[1] name; ARGV[2] owner; ARGV[3] seconds for which that holds, 0 at the end; ARGV[4] the facts
-- ARGV[5] "1": it begins, or is taken up again: by one process at a time
-- Answer: {"ok", what somebody wants or ""}, or {"taken", the entry}: somebody else is at work on it, nothing has changed

local RUNS, name, owner, seconds = KEYS[FIRST_FURTHER_KEY], ARGV[1], ARGV[2], tonumber(ARGV[3])
local entry = redis.call("HGET", RUNS, name)
local holder, holds = string.match(entry or "", "^(%S+) (.*)$")
if holder and holder ~= owner and (works(holds) or ARGV[5] ~= "1") then
  return { "taken", entry }
end
if holder == owner and ARGV[5] ~= "1" and tonumber(string.match(holds, "^%S+ (%S+)")) == 0 then
  return { "ok", "" } -- a note that comes late: its run has ended
end
if ARGV[5] == "1" then
  redis.call("HDEL", RUNS, "? " .. name)
end
redis.call("HSET", RUNS, name, owner .. " " .. seconds_text(now + seconds) .. " " .. seconds .. " " .. ARGV[4])
return { "ok", redis.call("HGET", RUNS, "? " .. name) or "" }
