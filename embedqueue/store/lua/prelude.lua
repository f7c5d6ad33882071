-- What every script begins with: scripts.py puts this text in front of each of them.
--
-- KEYS, in every script alike (further KEYS are the users' hashes or cache entries):
--   1 pending ZSET     member -> Unix time of the enqueue
--   2 inflight ZSET    member -> end of its lease
--   3 latest HASH      redis_key -> its one live member
--   4 claims HASH      redis_key -> "score deliveries owner"; no owner while the item is pending again; an owner is
--                      "WORKER:NUMBER/SECONDS:", with the seconds of its lease
--   5 dead ZSET        member -> when it was given up
--   6 dead:info HASH   redis_key -> JSON: member, reason, deliveries, score; member -> the same, where it is not ours
--   7 events STREAM    kind, by (the worker that tells), body (JSON list of redis_keys, or a word)
--   8 pause STRING     exists: nobody claims; why, in words for people
--   9 pause:level STRING   how often in a row the provider failed
--  10 pause:probe STRING   exists: one call tests the provider, and nobody else claims; the owner of its claim
--  11 pause:ours STRING    "MS WORDS" of a pause that a failure has made: it lasts no longer than so many ms
-- All times are the server's, in seconds. What scripts keep, I1 to I4, stands in docs/design.md.

local PENDING, INFLIGHT, LATEST, CLAIMS, DEAD, INFO, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local PAUSE, LEVEL, PROBE, OURS = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local FIRST_FURTHER_KEY = 12
local CHUNK = 1000 -- values handed to one command by unpack(): Lua's stack holds about 8,000
local EVENTS_LENGTH = 10000 -- approximate; a notice is short, and whoever misses one sweeps

local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- A time as text: tostring() would round to 14 digits.
local function stamp(seconds)
  return string.format("%.6f", seconds)
end

local function notice(kind, by, body)
  redis.call("XADD", EVENTS, "MAXLEN", "~", EVENTS_LENGTH, "*", "kind", kind, "by", by, "body", body)
end

-- A dead letter of a key that has a newer text is superseded like any older text.
local function exhume(key)
  local info = redis.call("HGET", INFO, key)
  local member = info and cjson.decode(info).member
  if member then -- else it is of a foreign member that happens to read like the key
    redis.call("ZREM", DEAD, member)
    redis.call("HDEL", INFO, key)
  end
end

-- Nothing lasts longer than it was made to last. Where it seems to, the server's clock was set back since, and nobody
-- shall wait until it has caught up.
local SLACK = 1 -- seconds by which clocks are corrected all the time
