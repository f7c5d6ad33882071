-- Claim items, under a lease: those that somebody waits for first, then the oldest.
--
-- ARGV[1] most items to claim; ARGV[2] most items of a probe (one call's worth); ARGV[3] most bytes of members
-- ARGV[4] owner: names this claim, "WORKER:NUMBER/SECONDS:", without spaces; numbers rise
-- ARGV[5] seconds of the lease; ARGV[6] max_deliveries
-- ARGV[7] "1": the caller has nothing in flight, so an item on its last delivery may be claimed, alone; "0": it must wait
--   until that is so; "never": others shall claim it
-- ARGV[8] "1": leases that have run out are left alone, for nobody could renew them while Redis was away
-- ARGV[9] the time from which the caller waits for the answer no longer, or ""
-- ARGV[10] "1": claim although there are strays or ghosts: another program never rests, and adopting them has not helped
-- ARGV[11] JSON: in what the caller has to agree with others, by name
-- ARGV[12] JSON: the limits, as buckets.open() takes them, in the hash KEYS[15]; "" where there are none
-- ARGV[13] the terms of a budget, see budget.lua, whose hash is the last of KEYS; "" where there is none
-- ARGV[14] what waits for batch jobs, as job_bound() takes it, and is left to them; "" where nothing does
-- ARGV[15] "1": an item in a job that somebody waits for is taken out of it
-- ARGV[16..] redis_keys that somebody waits for
-- Answer: {status, now, waiting, score of the first or "", when it was enqueued or "", the base of scores or "", next lease
--   end or "", pause in ms or -2, alone, when the oldest that was claimed was enqueued or "", leases that had run out,
--   {member, reason, deliveries, ... of those that were rejected},
--   {stray, ... that were met}, {setting, what is kept, ... that differ}, strays less ghosts,
--   "SECONDS HELD" until the limits let more be claimed, or "": of what stays, somebody waits for so many; the cost of
--   what was taken from the buckets, or "", how many wait for jobs, how many were taken out of them, member, ...}
--   status "ok"; "probe": the provider failed last time, this one call tests it, and its caller holds the pause;
--   "paused": nobody claims; "adopt": nothing was claimed, for strays have to be adopted first;
--   "budget": nothing was claimed, for the budget is spent; a pause has begun, which the answer tells;
--   "differs": the caller must not claim; "late": this claim comes when nobody waits for it any more, or is a copy.
--   alone "no"; "waits": items on their last delivery stay, until the caller has nothing in flight;
--   "taken": this is one of those, and nothing may be in flight beside it.
--   or the error "LAYOUT n", and nothing has changed
-- Keeps I1: nothing is claimed that latest does not name. Keeps I4: what leaves here is rejected.
-- What may not be sent yet is not claimed: the cost is taken in the step that claims.

local limit, probe_limit, most_bytes, owner = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local lease, max_deliveries, alone_allowed = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == "1"
local patient = ARGV[8] == "1"
local deadline, unordered = tonumber(ARGV[9]), ARGV[10] == "1"
local READ_BYTES = 500000 -- of members that are read at once, about
local FIRST_URGENT = 16
local PATIENCE = 1 -- seconds after which somebody patient looks at leases again
local AT_ONCE = 200 -- leases that one claim puts right, and strays that it tells of
local MANY_SETTINGS = 200 -- from so many on, those that need not be kept any more are looked for

local layout, base, off, stamp = unpack(redis.call("HMGET", SETTINGS, "layout", "base", "economy", "stamp"))
if layout and layout ~= LAYOUT then
  return redis.error_reply("LAYOUT " .. layout)
end
local number, worker = claim_number(owner)
if number <= last_claim(worker) or (deadline and now > deadline) then
  return { "late", seconds_text(now), 0, "", "", "", "", -2, "no", "", 0, {}, {}, {}, 0, "", "", 0, 0 }
end
close_claims(worker, number, lease)
if redis.call("HLEN", SETTINGS) > MANY_SETTINGS then
  local cursor, some = unpack(redis.call("HSCAN", SETTINGS, redis.call("HGET", SETTINGS, "cursor") or "0", "COUNT", 50))
  for i = 1, #some, 2 do
    local ends = string.match(some[i], "^%x+:?$") and string.match(some[i + 1], "^%d+ ([%d.]+)")
    if ends and tonumber(ends) < now then
      redis.call("HDEL", SETTINGS, some[i])
    end
  end
  redis.call("HSET", SETTINGS, "cursor", cursor)
end

if ARGV[13] == "" then
  budget = nil
else
  budget.open(ARGV[13], owner)
end
local rejected, gone = {}, {} -- member, reason, deliveries, ...; stamps

-- Leases that end too late, because the clock was set back, end as if they had just been renewed.
local latest_end = seconds_text(now + lease + SLACK)
local late = redis.call("ZREVRANGEBYSCORE", INFLIGHT, "(" .. JOBS, latest_end, "WITHSCORES", "LIMIT", 0, 100)
for i = 1, #late, 2 do
  local too_late, seconds = outlasts(late[i], tonumber(late[i + 1]))
  if too_late then
    redis.call("ZADD", INFLIGHT, seconds_text(now + seconds), late[i])
  end
end

-- Items whose lease ran out (their worker died or lost Redis) wait again under their old score, one delivery more counted,
-- or are rejected. What latest does not name becomes a stray.
local ran_out = redis.call("ZRANGEBYSCORE", INFLIGHT, "-inf", seconds_text(now), "LIMIT", 0, patient and 0 or AT_ONCE)
local failed = {}
for _, member in ipairs(ran_out) do
  local key = key_of(member)
  local value = key and redis.call("HGET", LATEST, key)
  local named = value and names(value, member)
  local score, deliveries, holder = parse_claim(named and redis.call("HGET", CLAIMS, key))
  deliveries = deliveries + 1
  if budget and holder ~= "" then
    budget.lost(holder)
  end
  if not named then
    disown(member, key, value)
  elseif deliveries >= max_deliveries then
    local reason = "its worker died " .. deliveries .. " times (max_deliveries)"
    reject(member, key, deliveries, reason, false, gone)
    for _, what in ipairs({ member, reason, deliveries }) do
      rejected[#rejected + 1] = what
    end
    failed[#failed + 1] = key
  else
    score = score or seconds_text(now)
    redis.call("ZREM", INFLIGHT, member)
    redis.call("ZADD", deliveries >= max_deliveries - 1 and ALONE or PENDING, score, member)
    redis.call("HSET", CLAIMS, key, score .. " " .. deliveries)
  end
end
tell("failed", "", failed)
count_down(gone)

local members, place, claims = {}, {}, {} -- in order; whether a member is among them; redis_key, entry of claims, ...
local met, bytes = {}, 0 -- strays
local alone, since_of = "no", {} -- when each of the members was enqueued
local bound, of_jobs, promoted = job_bound(ARGV[14], base, off, stamp), {}, 0 -- stamps of members that were in jobs; how many were

local function put(member, key, score, deliveries, value)
  local index = #members + 1
  members[index], place[member] = member, true
  claims[2 * index - 1], claims[2 * index] = key, score .. " " .. deliveries .. " " .. owner
  since_of[index] = math.min(now, enqueued_at(value, member, score)) -- later only by a clock that was set back since
  bytes = bytes + #member
  if buckets then
    buckets.add(member, key)
  end
end

local function full()
  return #members >= limit or bytes >= most_bytes or #met >= AT_ONCE or (buckets and buckets.full())
    or (budget and budget.refused())
end

-- Claim what may be claimed of `list` (member, score, member, score, ...); returns how many of these stay in pending
-- until all is claimed.
local function take(list)
  local keys, fields, stay = {}, {}, 0
  for i = 1, #list / 2 do
    keys[i] = key_of(list[2 * i - 1]) or false
    fields[i] = keys[i] or ""
  end
  local latest, claimed = redis.call("HMGET", LATEST, unpack(fields)), redis.call("HMGET", CLAIMS, unpack(fields))
  local bars = air and air.bars(fields, latest) or {}
  for i = 1, #keys do
    local member, score = list[2 * i - 1], list[2 * i]
    local _, deliveries = parse_claim(claimed[i])
    stay = stay + 1
    if full() then
      break
    elseif not place[member] then
      if not (latest[i] and names(latest[i], member)) then
        met[#met + 1] = member
      elseif bars[i] then -- it stays until no older text of its key can be written any more
      elseif deliveries > 0 and deliveries >= max_deliveries - 1 then
        if of_jobs[member] then -- whoever put it there has larger max_deliveries
          leave_job(member, keys[i], latest[i], tonumber(score), deliveries)
          promoted = promoted + 1
        end
        redis.call("ZREM", PENDING, member) -- it may be what killed its workers, and must not take neighbours along
        redis.call("ZADD", ALONE, score, member)
        stay = stay - 1
      elseif budget and not budget.takes(member, keys[i]) then
        break
      else
        put(member, keys[i], score, deliveries, latest[i])
      end
    end
  end
  return stay
end

-- Claim one that is on its last delivery, and nothing else: one that somebody waits for, or the oldest.
local function take_alone()
  local list = redis.call("ZRANGE", ALONE, 0, 0, "WITHSCORES")
  for i = FIRST_URGENT, #ARGV do
    local value = redis.call("HGET", LATEST, ARGV[i])
    local member = value and entry(value)
    local score = member and redis.call("ZSCORE", ALONE, member)
    if score then
      list = { member, score }
      if buckets then
        buckets.waited_for(1)
      end
      break
    end
  end
  local key = list[1] and key_of(list[1])
  local value = key and redis.call("HGET", LATEST, key)
  if value and air and air.bars({ key }, { value })[1] then
    return
  elseif value and names(value, list[1]) and budget and not budget.takes(list[1], key) then
    return
  elseif value and names(value, list[1]) then
    local _, deliveries = parse_claim(redis.call("HGET", CLAIMS, key))
    put(list[1], key, list[2], deliveries, value)
    alone = "taken"
  else
    met[#met + 1] = list[1]
  end
end

local ours = cjson.decode(ARGV[11])
local status, pause_ms, differs, unknown = "ok", pause_left(), {}, strays()
if limit > 0 then
  differs = differing(ours, false)
end
if #differs > 0 then
  status, limit = "differs", 0
elseif pause_ms ~= -2 then
  status, limit = "paused", 0
elseif unknown > 0 and not unordered then -- a ghost cannot be claimed, so it bars nobody
  status, limit = "adopt", 0
elseif redis.call("EXISTS", LEVEL) == 1 then
  status, limit = "probe", math.min(limit, probe_limit)
end

if buckets and limit > 0 then
  buckets.open(ARGV[12])
end
if limit > 0 and alone_allowed and redis.call("ZCARD", ALONE) > 0 then
  take_alone()
end
if limit > 0 and #members == 0 and not full() then
  for i = FIRST_URGENT, #ARGV do
    local value = not full() and redis.call("HGET", LATEST, ARGV[i])
    local member = value and entry(value)
    local score = member and redis.call("ZSCORE", PENDING, member)
    if member and not score and ARGV[15] == "1" and tonumber(redis.call("ZSCORE", INFLIGHT, member) or 0) >= JOBS then
      score = parse_claim(redis.call("HGET", CLAIMS, ARGV[i]))
      score = score and string.format("%.17g", math.min(tonumber(score), bound or now))
      of_jobs[member] = score and tonumber(string.match(value, "^%d+") or 0)
    end
    if score then
      take({ member, score })
    end
  end
  if buckets then
    buckets.waited_for(#members)
  end
  local from, count = 0, 1 -- read one at first, and then as many as are not too long
  while not full() do
    local list = redis.call("ZRANGE", PENDING, from, from + math.min(limit - #members, count) - 1, "WITHSCORES")
    if #list == 0 then
      break
    end
    local size = 0
    for i = 1, #list, 2 do
      if bound and tonumber(list[i + 1]) > bound then
        for j = #list, i, -1 do
          list[j] = nil
        end
        break
      end
      size = size + #list[i]
    end
    if #list == 0 then
      break
    end
    from = from + take(list)
    count = math.max(1, math.min(4 * count, CHUNK, math.floor(READ_BYTES * #list / 2 / size)))
  end
  if ARGV[7] ~= "never" and redis.call("ZCARD", ALONE) > 0 then
    alone = "waits"
  end
end

-- What may not go out yet stays where it is. The buckets were told of what the budget takes only, and the budget reserves
-- what they let go only.
local wait, cost = "", ""
if buckets and limit > 0 then
  local kept
  kept, wait, cost = buckets.take()
  for i = #members, kept + 1, -1 do
    members[i], claims[2 * i - 1], claims[2 * i], since_of[i] = nil, nil, nil, nil
  end
  if cost ~= "" then
    close_claims(worker, number, lease, cost)
  end
  if budget then
    budget.keep(kept)
  end
end
if air and #members == 0 and wait == "" then
  wait = air.wait()
end
if alone == "taken" and #members > 0 then
  redis.call("ZREM", ALONE, members[1])
elseif alone == "taken" then
  alone = "waits"
end

for i, member in ipairs(next(of_jobs) and members or {}) do
  if of_jobs[member] then
    promoted = promoted + 1
    moves(of_jobs[member], JOBS, tonumber((parse_claim(claims[2 * i]))))
  end
end
local lease_end = seconds_text(now + lease)
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
if #members == 0 and #met > 0 then
  status = "adopt"
end
if status == "probe" then
  if #members > 0 then
    redis.call("SET", PROBE, owner, "PX", math.ceil(lease * 1000))
  else
    status = "ok" -- nothing to try it with
  end
end

if budget then
  status, pause_ms = budget.close(status, pause_ms)
end

local ends = redis.call("ZRANGE", INFLIGHT, 0, 0, "WITHSCORES")
local lease_ends = ends[2] and tonumber(ends[2]) < JOBS and ends[2] or ""
if patient and lease_ends ~= "" then
  lease_ends = seconds_text(math.max(tonumber(ends[2]), now + PATIENCE))
end
local oldest = since_of[1] or ""
for i = 2, #since_of do
  oldest = math.min(oldest, since_of[i])
end
local waiting, score, since, meant = waiting_items(bound)
if base and waiting + meant == 0 and not ends[1] then
  redis.call("HDEL", SETTINGS, "base") -- nothing counts by it any more
  base = nil
end
return {
  status, seconds_text(now), waiting, score, since, base or "", lease_ends, pause_ms, alone,
  oldest == "" and "" or seconds_text(oldest), #ran_out, rejected, met, differs, unknown, wait, cost, meant, promoted,
  unpack(members)
}
