-- What the scripts that deal with claims and leases begin with, after prelude.lua. An enqueue, which is called a thousand
-- times as often, does without: to define all this takes Redis a microsecond.

-- The redis_key of a member, or nil where it is not our JSON.
local function strict_key_of(member)
  local fine, pair = pcall(cjson.decode, member)
  if fine and type(pair) == "table" and type(pair.redis_key) == "string" and type(pair.text) == "string" and pair.redis_key ~= "" then
    return pair.redis_key
  end
  return nil
end

-- The same for a member that is most likely ours: where the key needs no unescaping, no parser is asked.
local function key_of(member)
  return string.match(member, '^{"redis_key":"([^"\\%c]+)","text":"') or strict_key_of(member)
end

-- The score (text), deliveries (number) and owner of an entry of claims; nil, 0 and "" where there is none.
local function parse(claim)
  local score, deliveries, owner = string.match(claim or "", "^(%S+) (%d+) ?(%S*)$")
  return score, tonumber(deliveries or 0), owner or ""
end

-- The seconds of the lease of an owner, or nil where its name does not tell them.
local function lease_of(owner)
  return tonumber(string.match(owner or "", "/([%d.]+):$"))
end

-- Whether the lease of a member ends later than it can, and how many seconds it was made to last.
local function outlasts(member, ends)
  local key = ends > now + SLACK and key_of(member)
  local _, _, owner = parse(key and redis.call("HGET", CLAIMS, key))
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

-- Make a dead letter of a member. `key` is nil where it is not our JSON; `foreign`: it only looks like ours in Lua.
local function reject(member, key, score, deliveries, reason, foreign)
  redis.call("ZREM", PENDING, member)
  redis.call("ZREM", INFLIGHT, member)
  local info = { reason = reason, deliveries = deliveries, score = score }
  if key and not foreign then
    if redis.call("HEXISTS", INFO, key) == 1 then
      redis.call("ZREM", DEAD, key) -- the letter of a member that is not our JSON and reads like the key gives way
    end
    info.member = member
    redis.call("ZADD", DEAD, stamp(now), member)
    redis.call("HSET", INFO, key, cjson.encode(info))
  elseif not cjson.decode(redis.call("HGET", INFO, member) or "{}").member then
    redis.call("ZADD", DEAD, stamp(now), member)
    redis.call("HSET", INFO, member, cjson.encode(info)) -- it may be no UTF-8, so that JSON could not hold it
  end
  if key and redis.call("HGET", LATEST, key) == member then
    redis.call("HDEL", LATEST, key)
    redis.call("HDEL", CLAIMS, key)
  end
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
