-- Claim items, under a lease: those that somebody waits for first, then the oldest. While members written by another
-- program wait that no claim has adopted, the oldest only: their older text must meet the newer one of its key.
--
-- ARGV[1] most items to claim; ARGV[2] most items of a probe (one call's worth)
-- ARGV[3] owner: names this claim, "WORKER:NUMBER/SECONDS:", without spaces
-- ARGV[4] seconds of the lease; ARGV[5] max_deliveries
-- ARGV[6] "1": the caller has nothing in flight, so an item on its last delivery may be claimed, alone
-- ARGV[7..] redis_keys that somebody waits for
-- Answer: {status, now, waiting, oldest score or "", next lease end or "", pause in ms or -2, alone, least score claimed
--   or "", leases that had run out, {member, reason, deliveries, ... of those that were rejected}, member, ...}
--   status "ok"; "probe": the provider failed last time, this one call tests it, and its caller holds the pause;
--   "paused": nobody claims.
--   alone "no"; "waits": items on their last delivery stay, until the caller has nothing in flight;
--   "taken": this is one of those, and nothing may be in flight beside it.
-- Keeps I1: members written by another program are adopted into latest; of several for one key the newest stays.
-- Keeps I4: what leaves here is superseded or rejected.

local limit, probe_limit, owner = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local lease, max_deliveries, alone_allowed = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6] == "1"

local rejected = {} -- member, reason, deliveries, ...

local function reject_and_tell(member, key, score, deliveries, reason)
  reject(member, key, score, deliveries, reason)
  rejected[#rejected + 1] = member
  rejected[#rejected + 1] = reason
  rejected[#rejected + 1] = deliveries
end

-- Leases that end too late, because the clock was set back, end as if they had just been renewed.
local late = redis.call("ZRANGEBYSCORE", INFLIGHT, stamp(now + lease + SLACK), "+inf", "WITHSCORES", "LIMIT", 0, CHUNK)
for i = 1, #late, 2 do
  local too_late, seconds = outlasts(late[i], tonumber(late[i + 1]))
  if too_late then
    redis.call("ZADD", INFLIGHT, stamp(now + seconds), late[i])
  end
end

-- Items whose lease ran out (their worker died or lost Redis) go back to pending under their old score, one delivery more
-- counted, or are rejected.
local ran_out = redis.call("ZRANGEBYSCORE", INFLIGHT, "-inf", stamp(now), "LIMIT", 0, CHUNK)
for _, member in ipairs(ran_out) do
  local key = key_of(member)
  local score, deliveries = parse(key and redis.call("HGET", CLAIMS, key))
  score, deliveries = score or stamp(now), deliveries + 1
  if not key or deliveries >= max_deliveries then
    reject_and_tell(member, key, score, deliveries, key and "its worker died " .. deliveries .. " times (max_deliveries)" or "not our JSON")
    if key then
      notice("failed", "", cjson.encode({ key }))
    end
  else
    redis.call("ZREM", INFLIGHT, member)
    redis.call("ZADD", PENDING, score, member)
    redis.call("HSET", CLAIMS, key, score .. " " .. deliveries)
  end
end

local members, place, claims = {}, {}, {} -- in order; member -> its index; redis_key, entry of claims, ...
local alone, least_score = "no", ""

-- Claim a member, as the index-th.
local function put(index, member, key, score, deliveries)
  members[index] = member
  place[member] = index
  claims[2 * index - 1] = key
  claims[2 * index] = score .. " " .. deliveries .. " " .. owner
  if least_score == "" or tonumber(score) < tonumber(least_score) then
    least_score = score
  end
end

-- Adopt a member written by another program (latest does not name it) and claim it, unless a newer item of its key lives.
-- Returns how many members that were to stay in pending it has superseded.
local function adopt(member, key, score)
  if strict_key_of(member) ~= key then -- it is cut short, or has two keys: readers of JSON do not agree on it
    reject_and_tell(member, nil, score, 0, "not our JSON")
    return 0
  end
  local left = 0
  local live = redis.call("HGET", LATEST, key)
  if live then
    local live_score = redis.call("ZSCORE", PENDING, live) or parse(redis.call("HGET", CLAIMS, key)) or 0
    if tonumber(live_score) >= tonumber(score) then
      redis.call("ZREM", PENDING, member)
      return 0
    end
    left = redis.call("ZREM", PENDING, live)
    redis.call("ZREM", INFLIGHT, live) -- whoever holds it has lost it
  end
  drop_dead_letter(key)
  redis.call("HSET", LATEST, key, member)
  local index = live and place[live]
  put(index or #members + 1, member, key, score, 0)
  return index and 0 or left
end

-- The redis_keys of `list` (member, score, member, score, ...), and what latest and claims say of them.
local function lookup(list)
  local keys, fields = {}, {}
  for i = 1, #list / 2 do
    keys[i] = key_of(list[2 * i - 1]) or false
    fields[i] = keys[i] or ""
  end
  return keys, redis.call("HMGET", LATEST, unpack(fields)), redis.call("HMGET", CLAIMS, unpack(fields))
end

local function must_travel_alone(deliveries)
  return deliveries > 0 and deliveries >= max_deliveries - 1
end

-- Claim what may be claimed of `list`; returns how many of its members stay in pending.
local function take(list)
  local keys, latest, claimed = lookup(list)
  local had, stay = #members, 0
  for i = 1, #keys do
    local member, score, key = list[2 * i - 1], list[2 * i], keys[i]
    local _, deliveries = parse(claimed[i])
    if place[member] then
      stay = stay + 1
    elseif not key then
      reject_and_tell(member, nil, score, 0, "not our JSON")
    elseif latest[i] ~= member then
      stay = stay - adopt(member, key, score)
    elseif must_travel_alone(deliveries) then
      alone = "waits" -- it may be what killed its workers, and must not take neighbours along
      stay = stay + 1
    else
      put(#members + 1, member, key, score, deliveries)
    end
  end
  return stay + #members - had
end

-- Claim the first of `list` that is on its last delivery, and nothing else.
local function take_alone(list)
  local keys, latest, claimed = lookup(list)
  for i = 1, #keys do
    local _, deliveries = parse(claimed[i])
    if keys[i] and latest[i] == list[2 * i - 1] and must_travel_alone(deliveries) then
      put(1, list[2 * i - 1], keys[i], list[2 * i], deliveries)
      alone = "taken"
      return
    end
  end
end

local status, pause_ms = "ok", pause_left()
if pause_ms ~= -2 then
  status, limit = "paused", 0
elseif redis.call("EXISTS", LEVEL) == 1 then
  status, limit = "probe", math.min(limit, probe_limit)
end

if limit > 0 and alone_allowed and redis.call("EXISTS", CLAIMS) == 1 then
  local list = redis.call("ZRANGE", PENDING, 0, CHUNK - 1, "WITHSCORES")
  if #list > 0 then
    take_alone(list)
  end
end
if #members == 0 then
  local unseen = redis.call("ZCARD", PENDING) + redis.call("ZCARD", INFLIGHT) > redis.call("HLEN", LATEST)
  for i = 7, unseen and 0 or #ARGV do
    local member = #members < limit and redis.call("HGET", LATEST, ARGV[i])
    local score = member and redis.call("ZSCORE", PENDING, member)
    if score then
      take({ member, score })
    end
  end
  local from = 0
  while #members < limit do
    local list = redis.call("ZRANGE", PENDING, from, from + math.min(limit - #members, CHUNK) - 1, "WITHSCORES")
    if #list == 0 then
      break
    end
    from = from + take(list)
  end
end

local lease_end = stamp(now + lease)
for at = 1, #members, CHUNK do
  local last = math.min(at + CHUNK - 1, #members)
  local scored = {}
  for i = at, last do
    scored[#scored + 1] = lease_end
    scored[#scored + 1] = members[i]
  end
  redis.call("ZREM", PENDING, unpack(members, at, last))
  redis.call("ZADD", INFLIGHT, unpack(scored))
  redis.call("HSET", CLAIMS, unpack(claims, 2 * at - 1, 2 * last))
end
if status == "probe" then
  if #members > 0 then
    redis.call("SET", PROBE, owner, "PX", math.ceil(lease * 1000))
  else
    status = "ok" -- nothing to try it with
  end
end

local oldest = redis.call("ZRANGE", PENDING, 0, 0, "WITHSCORES")
local ends = redis.call("ZRANGE", INFLIGHT, 0, 0, "WITHSCORES")
return {
  status, stamp(now), redis.call("ZCARD", PENDING), oldest[2] or "", ends[2] or "", pause_ms, alone,
  least_score, #ran_out, rejected, unpack(members)
}
