-- What every script begins with: scripts.py puts this text in front of each of them.
--
-- KEYS, in every script alike (further KEYS are the users' hashes or cache entries):
--   1 pending ZSET     member -> Unix time of the enqueue
--   2 inflight ZSET    member -> end of its lease
--   3 latest HASH      redis_key -> the member of its one live item
--   4 claims HASH      redis_key -> "score deliveries owner"; no owner while the item waits again; an owner is
--                      "WORKER:NUMBER/SECONDS:", with the seconds of its lease
--   5 dead ZSET        member -> when it was rejected
--   6 dead:info HASH   redis_key -> JSON: member, reason, deliveries, score; member -> the same, where it is not ours
--   7 events STREAM    kind, by (the worker that tells), body (JSON list of redis_keys, or a word)
--   8 pause STRING     why nobody claims, in words for people; while it exists nobody does
--   9 pause:level STRING   how often in a row the provider has failed
--  10 pause:probe STRING   the owner of the claim that tests the provider; while it exists nobody else claims
--  11 pause:ours STRING    "MS WORDS" of a pause that a failure has made: it lasts no longer than so many ms
-- All times are Unix seconds by the server's clock, unless a name or a comment says ms.
--
-- The scripts keep these invariants; docs/design.md, section 4, tells more of each:
--   I1 A redis_key has at most one live item. It is in pending or in inflight, never in both, and latest names it.
--      Members written by another program are the exception until a claim adopts them: the higher score of a key wins.
--   I2 When enqueue returns, every older item of the key that latest or dead:info knows is gone.
--   I3 A vector of an older text never overwrites the vector of a newer one: complete alone writes vectors, for members
--      that are in inflight, and takes them out in the same step.
--   I4 An item leaves only when its vector is written, when it becomes a dead letter, when a newer text of its key takes
--      its place, or, with if_missing="skip", when its hash is gone.
-- One verb for one thing: claim (pending to inflight, under a lease), release (back to pending, no delivery counted),
-- acknowledge (out of inflight after the write), reject (make a dead letter), adopt (give a member written by another
-- program its entry in latest).

local PENDING, INFLIGHT, LATEST, CLAIMS, DEAD, INFO, EVENTS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local PAUSE, LEVEL, PROBE, OURS = KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local FIRST_FURTHER_KEY = 12
local CHUNK = 1000 -- values that unpack() hands to one command: Lua's stack holds about 8,000
local EVENTS_LENGTH = 10000 -- notices, approximately; store/events.py has the same number

local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- A time as text: tostring() would round to 14 digits.
local function stamp(seconds)
  return string.format("%.6f", seconds)
end

local function notice(kind, by, body)
  redis.call("XADD", EVENTS, "MAXLEN", "~", EVENTS_LENGTH, "*", "kind", kind, "by", by, "body", body)
end

-- Drop the dead letter of a key that gets a newer text: that supersedes it like any older item.
local function drop_dead_letter(key)
  local info = redis.call("HGET", INFO, key)
  local member = info and cjson.decode(info).member
  if member then -- else it is of a member that is not our JSON and reads like the key
    redis.call("ZREM", DEAD, member)
    redis.call("HDEL", INFO, key)
  end
end

-- A lease or a pause that seems to last longer than it was made to last tells that the server's clock was set back. It
-- is shortened, because nobody shall wait until the clock has caught up.
local SLACK = 1 -- seconds by which clocks are corrected all the time
