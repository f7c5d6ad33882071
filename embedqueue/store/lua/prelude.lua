-- What scripts share, after names.lua.

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

-- Take a member out of wherever it stands.
local function remove(member)
  if redis.call("ZREM", PENDING, member) == 0 then
    redis.call("ZREM", ALONE, member)
  end
  redis.call("ZREM", INFLIGHT, member)
end

local function stands(member)
  return redis.call("ZSCORE", PENDING, member) or redis.call("ZSCORE", INFLIGHT, member) or redis.call("ZSCORE", ALONE, member)
end

-- The score (text), deliveries (number) and owner of an entry of claims; nil, 0 and "" where there is none.
local function parse_claim(claim)
  local score, deliveries, owner = string.match(claim or "", "^(%S+) (%d+) ?(%S*)$")
  return score, tonumber(deliveries or 0), owner or ""
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

-- Whether an owner is a job.
local function is_job(owner)
  return string.sub(owner, 1, 4) == "job:"
end

-- Whether anybody flushes; asked once a script.
local flushed
local function flushing()
  if flushed == nil then
    flushed = redis.call("EXISTS", FLUSHES) == 1
  end
  return flushed
end

-- The score above which items do not count for a flush of this name.
local function bound_of(flush)
  return tonumber(string.match(flush, "/([%d.]+)$")) or 2 * JOBS
end

-- Whether anybody flushes who leaves jobs alone; asked once a script.
local bounded
local function leaving_jobs()
  if bounded == nil then
    bounded = false
    local flushes = flushing() and redis.call("HGETALL", FLUSHES) or {}
    for i = 1, #flushes, 2 do
      bounded = bounded or bound_of(flushes[i]) < JOBS
    end
  end
  return bounded
end

-- A live item of this stamp stands earlier in line than it did: by the score `after`, instead of `before`, which is JOBS if it was
-- in a job. Whoever flushes and did not count it waits for it as well from now on, for count_down() will take it off.
local function moves(stamp, before, after)
  local flushes = leaving_jobs() and redis.call("HGETALL", FLUSHES) or {}
  for i = 1, #flushes, 2 do
    local last, left, ends = string.match(flushes[i + 1], "^(%d+) (%d+) (%S+)$")
    local bound = bound_of(flushes[i])
    if before > bound and after <= bound and stamp <= tonumber(last) then
      redis.call("HSET", FLUSHES, flushes[i], last .. " " .. left + 1 .. " " .. ends)
    end
  end
end

-- Note the stamp of an item that leaves, for count_down, and where somebody flushes who leaves jobs alone, the score by which
-- it stood in line; to be called before its claim is forgotten. What a job has served counts for none of those.
local function leaves(gone, stamp, member, key)
  gone[#gone + 1] = stamp
  if leaving_jobs() then
    local score = member and (redis.call("ZSCORE", PENDING, member) or redis.call("ZSCORE", ALONE, member))
    if not score then
      local claimed, _, owner = parse_claim(redis.call("HGET", CLAIMS, key))
      score = is_job(owner) and JOBS or claimed
    end
    gone.scores = gone.scores or {}
    gone.scores[#gone] = tonumber(score)
  end
end

-- Count items that have left down for those who flush. `stamps`: of these items, as leaves() has noted them.
local function count_down(stamps)
  if #stamps == 0 or not flushing() then
    return
  end
  local flushes, highest = redis.call("HGETALL", FLUSHES), math.max(unpack(stamps, 1, math.min(#stamps, CHUNK)))
  for i = CHUNK + 1, #stamps do
    highest = math.max(highest, stamps[i])
  end
  for i = 1, #flushes, 2 do
    local stamp, left, ends = string.match(flushes[i + 1], "^(%d+) (%d+) (%S+)$")
    local bound, scores = bound_of(flushes[i]), stamps.scores or {}
    local gone = bound > JOBS and highest <= tonumber(stamp) and #stamps or 0
    for i = 1, gone == 0 and #stamps or 0 do
      gone = gone + (stamps[i] <= tonumber(stamp) and (scores[i] or 0) <= bound and 1 or 0)
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
