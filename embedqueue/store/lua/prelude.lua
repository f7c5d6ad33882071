-- What every script begins with: scripts.py puts this text in front of each of them.
--
-- KEYS, in every script alike (further KEYS are the users' hashes or cache entries):
--   1 pending ZSET     member -> Unix time of the enqueue
--   2 inflight ZSET    member -> end of its lease
--   3 alone ZSET       member -> Unix time of the enqueue, of items on their last delivery: each is claimed alone
--   4 latest HASH      redis_key -> "STAMP MEMBER" of its one live item, or "STAMP/SCORE MEMBER" where another program
--                      has written the member, with the time that counts as that of its enqueue
--   5 claims HASH      redis_key -> "score deliveries owner"; no owner while the item waits again; an owner is
--                      "WORKER:NUMBER/SECONDS:", with the seconds of its lease
--   6 dead ZSET        member -> when it was rejected
--   7 dead:info HASH   redis_key -> JSON: member, reason, deliveries, score; member -> the same, where it is not ours
--   8 events STREAM    kind, by (the worker that tells), body (JSON list of redis_keys, or a word)
--   9 settings HASH    layout; stamp, the last one; embedding_field, model, dimensions, in which processes must agree;
--                      cursor, up to where the following was tidied; and of each process that enqueues or claims: its name -> "NUMBER UNTIL ...", the number of its
--                      last command and until when that must be kept
--  10 flushes HASH     name of a flush -> "STAMP LEFT UNTIL": how many items of that stamp or before are not finished
--  11 pause STRING     why nobody claims, in words for people; while it exists nobody does
--  12 pause:level STRING   how often in a row the provider has failed
--  13 pause:probe STRING   the owner of the claim that tests the provider; while it exists nobody else claims
--  14 pause:ours STRING    "MS WORDS" of a pause that a failure has made: it lasts no longer than so many ms
-- All times are Unix seconds by the server's clock, unless a name or a comment says ms.
--
-- A stamp is the number of an item: microseconds of its enqueue, made strictly increasing. Stamps alone order the texts
-- of a key.
--
-- The scripts keep these invariants; docs/design.md, section 4, tells more of each:
--   I1 A redis_key has at most one live item, in one of pending, inflight and alone, and latest names it. What latest
--      names and none of them holds is a ghost (another program took it): the key has no item. What they hold and latest
--      does not name is a stray (another program left it): it is adopted before anything is claimed.
--   I2 When enqueue returns, every older item of the key that latest or dead:info knows is gone. A copy of a command that
--      comes late changes nothing.
--   I3 A vector is written only by complete, for a member that is in flight and that latest names, which is acknowledged
--      in the same step. So a vector of an older text never overwrites the vector of a newer one.
--   I4 An item leaves only when its vector is written, when it becomes a dead letter, when a newer text of its key takes
--      its place, or, with if_missing="skip", when its hash is gone.
-- One verb for one thing: claim (out of pending, under a lease), release (back to pending, no delivery counted),
-- acknowledge (out of inflight after the write), reject (make a dead letter), adopt (give a stray its entry in latest).

local PENDING, INFLIGHT, ALONE, LATEST, CLAIMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local DEAD, INFO, EVENTS, SETTINGS, FLUSHES = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local PAUSE, LEVEL, PROBE, OURS = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local FIRST_FURTHER_KEY = 15
local LAYOUT = "2" -- of all that stands above; scripts.py has the same number
local CHUNK = 1000 -- values that unpack() hands to one command: Lua's stack holds about 8,000
local EVENTS_LENGTH = 10000 -- notices, approximately; store/events.py has the same number
local NOTICE_BYTES = 2000 -- of redis_keys that one notice names; so the stream is bounded in bytes as well

local time = redis.call("TIME")
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = now_us / 1000000

-- A time as text: tostring() would round to 14 digits.
local function seconds_text(seconds)
  return string.format("%.6f", seconds)
end

local function notice(kind, by, body)
  redis.call("XADD", EVENTS, "MAXLEN", "~", EVENTS_LENGTH, "*", "kind", kind, "by", by, "body", body)
end

-- Tell of keys, in as many notices as that takes, and of a reason if there is one. Where a key is too long for a notice,
-- an empty list says that everybody has to look after all that they wait for.
local function tell(kind, by, keys, reason)
  local part, size = {}, 0
  for i, key in ipairs(keys) do
    part[#part + 1], size = key, size + #key + 3
    if size > NOTICE_BYTES or i == #keys then
      local list = size > 2 * NOTICE_BYTES and "[]" or cjson.encode(part)
      notice(kind, by, reason and '{"reason":' .. cjson.encode(reason) .. ',"keys":' .. list .. "}" or list)
      part, size = {}, 0
    end
  end
end

-- The member of an entry of latest, its stamp, and the time that counts as that of its enqueue. An entry that an earlier
-- release has written is a member alone: the others are nil.
local function entry(value)
  local stamp, score, member = string.match(value, "^(%d+)/?([%d.]*) (.*)$")
  if not stamp then
    return value
  end
  return member, tonumber(stamp), tonumber(score) or stamp / 1000000
end

-- Whether an entry of latest names a member. Nothing is copied: of a megabyte, that would take Redis milliseconds.
local function names(value, member)
  local at = string.find(value, "^%d") and string.find(value, " ", 1, true) or 0
  return #value == at + #member and string.find(value, member, at + 1, true) == at + 1
end

-- Take a member out of wherever it stands; returns how many places that were, and whether it waited.
local function remove(member)
  local waited = redis.call("ZREM", PENDING, member)
  if waited == 0 then
    waited = redis.call("ZREM", ALONE, member)
  end
  return waited + redis.call("ZREM", INFLIGHT, member), waited == 1
end

local function stands(member)
  return redis.call("ZSCORE", PENDING, member) or redis.call("ZSCORE", INFLIGHT, member) or redis.call("ZSCORE", ALONE, member)
end

-- Stamps, each greater than all before. The last one is kept by keep_stamp, or by whoever asks for it.
local last_stamp, stamp_given
local function next_stamp()
  if not last_stamp then
    last_stamp = tonumber(redis.call("HGET", SETTINGS, "stamp") or 0)
  end
  last_stamp, stamp_given = math.max(now_us, last_stamp + 1), true
  return last_stamp
end

local function stamp_text(stamp)
  return string.format("%.0f", stamp)
end

local function keep_stamp()
  if stamp_given then
    redis.call("HSET", SETTINGS, "stamp", stamp_text(last_stamp), "layout", LAYOUT)
  end
end

-- Count items that have left down for those who flush. `stamps`: of these items.
local function count_down(stamps)
  if #stamps == 0 or redis.call("EXISTS", FLUSHES) == 0 then
    return
  end
  local flushes, highest = redis.call("HGETALL", FLUSHES), math.max(unpack(stamps, 1, math.min(#stamps, CHUNK)))
  for i = CHUNK + 1, #stamps do
    highest = math.max(highest, stamps[i])
  end
  for i = 1, #flushes, 2 do
    local stamp, left, ends = string.match(flushes[i + 1], "^(%d+) (%d+) (%S+)$")
    local gone = highest <= tonumber(stamp) and #stamps or 0
    for i = 1, gone == 0 and #stamps or 0 do
      gone = gone + (stamps[i] <= tonumber(stamp) and 1 or 0)
    end
    if tonumber(ends) < now then -- whoever flushed has died
      redis.call("HDEL", FLUSHES, flushes[i])
    elseif gone > 0 then
      redis.call("HSET", FLUSHES, flushes[i], stamp .. " " .. math.max(0, left - gone) .. " " .. ends)
    end
  end
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
