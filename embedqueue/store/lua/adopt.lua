-- Adopt members that another program has left, or that a loss of our books has left without a name: strays.
--
-- KEYS[15..] the users' hashes, one for each member; ARGV[1] field of the provenance, or ""
-- ARGV[2] JSON: in what the caller has to agree with others, by name. One that is at odds with the namespace adopts
--   nothing: it may look for the age of a vector in another field than that in which it stands
-- ARGV[3] the latest time that counts as that of an enqueue, or "" for now
-- ARGV[4..] three for each member: member; its redis_key; why it cannot be ours, or ""
-- Answer: {strays that are left, member, reason, ... of those that were rejected}
-- Keeps I1: of several texts of a key the newest stays. A stray is as old as its score says, an item of ours as its stamp
-- says. One that is older than the vector in its hash is dropped.

if #differing(cjson.decode(ARGV[2]), false) > 0 then
  return { strays() }
end
local rejected, gone = {}, {}
local latest_time = math.min(now, tonumber(ARGV[3]) or now)

-- Whether a stray of this age is older than the vector that its hash holds.
local function outdated(hash, age)
  local line = ARGV[1] ~= "" and redis.pcall("HGET", hash, ARGV[1])
  local stamp = string.match(type(line) == "string" and line or "", "^%S+ %x+ (%d+)$")
  return stamp and age * 1000000 < tonumber(stamp)
end

local function adopt(member, key, hash, score)
  local value = live_entry(key, gone)
  if value then
    local live, stamp, age = entry(value)
    age = age or tonumber(redis.call("ZSCORE", PENDING, live) or parse_claim(redis.call("HGET", CLAIMS, key)) or 0)
    if age >= score then
      return remove(member)
    end
    leaves(gone, stamp or 0, live, key)
    remove(live)
    redis.call("HDEL", CLAIMS, key)
  elseif outdated(hash, score) then
    return remove(member)
  end
  drop_dead_letter(key)
  redis.call("ZADD", PENDING, seconds_text(score), member)
  redis.call("HSET", LATEST, key, stamp_text(next_stamp()) .. "/" .. seconds_text(score) .. " " .. member)
end

for i = FIRST_FURTHER_KEY, #KEYS do
  local at = 4 + 3 * (i - FIRST_FURTHER_KEY)
  local member, key, fault = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if fault == "" and key_of(member) ~= key then
    key, fault = "", "not our JSON: readers of JSON do not agree on its redis_key" -- or that it is JSON
  end
  local value = redis.call("HGET", LATEST, key)
  local elsewhere = redis.call("ZSCORE", INFLIGHT, member) or redis.call("ZSCORE", ALONE, member)
  if value and names(value, member) then
    if elsewhere then
      redis.call("ZREM", PENDING, member) -- another program has enqueued the same again
    end
  else
    if elsewhere then
      disown(member, key, value)
    end
    local score = redis.call("ZSCORE", PENDING, member)
    if score and fault ~= "" then
      local named = key ~= "" and not value -- else under its own name, for its key has an item
      if named then
        drop_dead_letter(key)
      end
      reject(member, named and key or nil, 0, fault, not named, gone)
      rejected[#rejected + 1] = member
      rejected[#rejected + 1] = fault
    elseif score then
      adopt(member, key, KEYS[i], math.min(latest_time, math.max(0, tonumber(score))))
    end
  end
end
count_down(gone)
keep_stamp()
return { strays(), unpack(rejected) }
