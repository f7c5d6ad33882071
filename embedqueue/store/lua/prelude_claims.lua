-- What the scripts that deal with claims and leases begin with, after prelude.lua. An enqueue, which is called a thousand
-- times as often, does without: to define all this takes Redis a microsecond.

local buckets -- what buckets.lua has, where the queue has limits
local budget -- what budget.lua has, in the scripts that know of money
local air -- what air.lua has, on a cluster

-- The redis_key of a member, or nil where it is not our JSON.
local function strict_key_of(member)
  local fine, pair = pcall(cjson.decode, member)
  if fine and type(pair) == "table" and type(pair.redis_key) == "string" and type(pair.text) == "string" and pair.redis_key ~= "" then
    return pair.redis_key
  end
  return nil
end

-- The same for a member that is most likely ours, or of json.dumps: where the key needs no unescaping, no parser is asked.
local function key_of(member)
  return string.match(member, '^{"redis_key":"([^"\\%c]+)","text":"')
    or string.match(member, '^{"redis_key": "([^"\\%c]+)", "text": "')
    or strict_key_of(member)
end

-- The seconds of the lease of an owner, or nil where its name does not tell them.
local function lease_of(owner)
  return tonumber(string.match(owner or "", "/([%d.]+):$"))
end

-- Whether the lease of a member ends later than it can, and how many seconds it was made to last.
local function outlasts(member, ends)
  local key = ends > now + SLACK and key_of(member)
  local _, _, owner = parse_claim(key and redis.call("HGET", CLAIMS, key))
  local lease = lease_of(owner)
  return lease and ends > now + lease + SLACK, lease
end

-- The ms for which nobody claims, as PTTL tells them: -2 where there is no pause, -1 where it has no end.
-- A pause of a probe or of a failure lasts no longer than it was made to last; people's pauses last as long as they wish.
local function pause_left()
  local ms = redis.call("PTTL", PAUSE)
  local most, words = string.match(ms > SLACK * 1000 and redis.call("GET", OURS) or "", "^(%d+) (.*)$")
  if most and ms > tonumber(most) + SLACK * 1000 and redis.call("GET", PAUSE) == words then
    redis.call("PEXPIRE", PAUSE, most)
    ms = tonumber(most)
  end
  local probe_ms = redis.call("PTTL", PROBE)
  if probe_ms == -2 or ms == -1 then
    return ms
  end
  local lease = lease_of(redis.call("GET", PROBE))
  if lease and probe_ms > (lease + SLACK) * 1000 then
    probe_ms = math.ceil(lease * 1000)
    redis.call("PEXPIRE", PROBE, probe_ms)
  end
  return math.max(ms, probe_ms)
end

-- Nobody claims for so many ms, a whole number, for these words. Such a pause lasts no longer than that, though the
-- clock be set back.
local function pause(words, ms)
  redis.call("SET", PAUSE, words, "PX", ms)
  redis.call("SET", OURS, ms .. " " .. words, "PX", ms)
end

-- Whether an entry of workers, or what begins as it does, holds still. One that seems to hold for longer than it was made to tells of a clock that
-- was set back: its worker is heard of again soon, or is gone.
local function works(value)
  local ends, seconds = string.match(value, "^([%d.]+) ([%d.]+) ")
  ends, seconds = tonumber(ends), tonumber(seconds)
  return ends and seconds and ends > now and ends <= now + seconds + SLACK
end

-- A score as a time, for it may be infinite: another program can write any.
local FAR = 1000000000 -- seconds
local function clamped(score)
  return math.max(0, math.min(now + FAR, tonumber(score)))
end

-- When an item was enqueued, as far as that is known: by its entry in latest, or else by its score. Neither when it was
-- adopted counts, nor when it was enqueued again.
local function enqueued_at(value, member, score)
  local stamp, age = string.match(value or "", "^(%d+)/?([%d.]*) ")
  if not (stamp and names(value, member)) then
    return clamped(score)
  end
  return math.min(stamp / 1000000, tonumber(age) or now + FAR)
end

-- Above which score items wait for a batch job; nil where nothing does. `spec`: "AFTER INTERVAL", so many seconds before it
-- is due an item is too late for a job, and a base where none is kept; or "". The others: as settings have them.
-- By a clock that was set back what has no patience would seem to have some: so it counts from the last stamp, but not from
-- one so far ahead that what has patience would have none for days.
local BEHIND = 43200 -- seconds
local function job_bound(spec, base, off, stamp)
  local after, interval = string.match(spec, "^(%S+) (%S+)$")
  if not after or now < (tonumber(off or nil) or 0) then
    return nil
  end
  local latest = math.max(now, math.min(now + BEHIND, (tonumber(stamp or nil) or 0) / 1000000))
  return latest + tonumber(after) - tonumber(base or interval)
end

local function job_settings()
  return unpack(redis.call("HMGET", SETTINGS, "base", "economy", "stamp"))
end

-- How many items wait that are not meant for a job; the score of the first of them, and when it was enqueued, or "" and "";
-- how many are meant for one.
local function waiting_items(bound)
  local waiting, first = redis.call("ZCARD", PENDING), redis.call("ZRANGE", PENDING, 0, 0, "WITHSCORES")
  local last = redis.call("ZCARD", ALONE)
  local meant = bound and redis.call("ZCOUNT", PENDING, "(" .. seconds_text(bound), "+inf") or 0
  waiting = waiting - meant
  if waiting == 0 then
    first = {}
  end
  local alone = last > 0 and redis.call("ZRANGE", ALONE, 0, 0, "WITHSCORES") or {}
  if alone[2] and (not first[2] or tonumber(alone[2]) < tonumber(first[2])) then
    first = alone
  end
  if not first[2] then
    return waiting + last, "", "", meant
  end
  local key, score = key_of(first[1]), clamped(first[2])
  local since = enqueued_at(key and redis.call("HGET", LATEST, key), first[1], score)
  if since > now + SLACK then -- a clock was set back, or that of another program is ahead: nobody knows how old it is
    since, score = now, 0 -- so it is due
  elseif score == now + FAR then -- another program has moved it: nobody may wait for so long
    score = 0
  end
  return waiting + last, seconds_text(score), seconds_text(since), meant
end

-- How many more members stand somewhere than latest names: strays, less ghosts. The count of ours that wait need not be
-- kept apart: it is what latest names, less what is in flight.
local function strays()
  local standing = redis.call("ZCARD", PENDING) + redis.call("ZCARD", INFLIGHT) + redis.call("ZCARD", ALONE)
  return standing - redis.call("HLEN", LATEST)
end

-- Forget the live item of a key, whose member stands nowhere any more; the stamp goes to `gone`, for count_down.
local function forget(key, value, gone)
  leaves(gone, tonumber(string.match(value, "^%d+") or 0), nil, key)
  redis.call("HDEL", LATEST, key)
  redis.call("HDEL", CLAIMS, key)
end

-- The entry of latest of a key, if what it names stands somewhere; a ghost is forgotten.
local function live_entry(key, gone)
  local value = redis.call("HGET", LATEST, key)
  if value and not stands((entry(value))) then
    forget(key, value, gone)
    return nil
  end
  return value or nil
end

-- Deal with a member that is in flight or alone and that latest does not name: `value` is the entry of its key, if there is
-- one. A newer text has taken its place; or its name was lost, so that it becomes a stray of pending, as old as it was.
local function disown(member, key, value)
  redis.call("ZREM", INFLIGHT, member)
  redis.call("ZREM", ALONE, member)
  if not value then
    local score = parse_claim(key and redis.call("HGET", CLAIMS, key))
    redis.call("ZADD", PENDING, "NX", score or 0, member)
  end
end

-- The number of the claim of an owner, "WORKER:NUMBER/SECONDS:", and its worker, with the colon.
local function claim_number(owner)
  local worker, number = string.match(owner, "^([^:]*:)(%d*)")
  return tonumber(number), worker
end

local CLOSED = 9000000000000000 -- greater than the number of any claim
local KEPT = 3600 -- seconds for which a worker's number is kept beyond its last lease: no network holds a copy for longer

-- A claim of this number has come, or will not be wanted when it comes: whatever of the worker is not above it is refused.
-- `cost`: what it has taken from the buckets.
local function close_claims(worker, number, lease, cost)
  local ends = seconds_text(now + lease + KEPT)
  redis.call("HSET", SETTINGS, worker, stamp_text(number) .. " " .. ends .. (cost and " " .. cost or ""))
end

-- The number of the last claim of a worker, and what it has taken from the buckets.
local function last_claim(worker)
  local last, cost = string.match(redis.call("HGET", SETTINGS, worker) or "", "^(%d+) %S+ ?(.*)$")
  return tonumber(last or 0), cost or ""
end

-- The settings in which processes must agree, and do not: {name, what is kept, name, what is kept, ...}. With `keep`, what
-- is not kept yet is kept from now on. `ours`: what the caller has, by name; what it does not know is not there.
local AGREED = { "embedding_field", "provenance_field", "model", "dimensions", "role", "vector_type" }
-- What a namespace has agreed in that keeps the first of these but not this one: an earlier release has kept them.
local BEFORE = { vector_type = "float32" }
local function differing(ours, keep)
  local found, all = {}, redis.call("HMGET", SETTINGS, unpack(AGREED))
  for i, kept in ipairs(all) do
    local own = ours[AGREED[i]]
    kept = kept or (all[1] and BEFORE[AGREED[i]])
    if own and not kept and keep then
      redis.call("HSET", SETTINGS, AGREED[i], own)
    elseif own and kept and kept ~= own then
      found[#found + 1] = AGREED[i]
      found[#found + 1] = kept
    end
  end
  return found
end

-- Make a dead letter of a member. `key` is nil where it is not our JSON; `foreign`: it only looks like ours in Lua.
-- The stamp goes to `gone`, for count_down.
local function reject(member, key, deliveries, reason, foreign, gone)
  remove(member)
  local info = { reason = reason, deliveries = deliveries }
  if key and not foreign then
    if redis.call("HEXISTS", INFO, key) == 1 then
      redis.call("ZREM", DEAD, key) -- the letter of a member that is not our JSON and reads like the key gives way
    end
    info.member = member
    redis.call("ZADD", DEAD, seconds_text(now), member)
    redis.call("HSET", INFO, key, cjson.encode(info))
  elseif not cjson.decode(redis.call("HGET", INFO, member) or "{}").member then
    redis.call("ZADD", DEAD, seconds_text(now), member)
    redis.call("HSET", INFO, member, cjson.encode(info)) -- it may be no UTF-8, so that JSON could not hold it
  end
  local value = key and redis.call("HGET", LATEST, key)
  if value and names(value, member) then
    forget(key, value, gone)
  end
end

-- Put a member that is in flight back to pending, by this score.
local function wait_again(member, key, score, deliveries)
  redis.call("ZREM", INFLIGHT, member)
  redis.call("ZADD", PENDING, score, member)
  if deliveries > 0 then
    redis.call("HSET", CLAIMS, key, score .. " " .. deliveries)
  else
    redis.call("HDEL", CLAIMS, key)
  end
end

-- Put a member back to pending, if it is in flight and its holder is `owner`, or one whose name begins so where that names
-- a worker. Returns 1, or 0 where it stays.
local function release(member, owner)
  local key = redis.call("ZSCORE", INFLIGHT, member) and key_of(member)
  local score, deliveries, holder = parse_claim(key and redis.call("HGET", CLAIMS, key))
  if not score or string.sub(holder, 1, #owner) ~= owner then
    return 0
  end
  wait_again(member, key, score, deliveries)
  return 1
end

-- Put an item of a job back to pending, there by this score: in the live lane, for which who flushes waits from now on.
local function leave_job(member, key, value, score, deliveries)
  wait_again(member, key, string.format("%.17g", score), deliveries)
  moves(tonumber(string.match(value, "^%d+") or 0), JOBS, score)
end

-- Whether two owners are of the same worker: both names begin with "WORKER:".
local function same_worker(holder, owner)
  return string.match(holder, "^[^:]*:") == string.match(owner, "^[^:]*:")
end

-- The provider has answered: if this claim tested it, the pause ends and everybody claims again.
local function end_probe(owner)
  if redis.call("GET", PROBE) == owner then
    redis.call("DEL", PROBE, LEVEL)
    notice("wake", owner, "")
  end
end
