-- Take items in. The newest text of a key wins; what stood for that key before is gone when this returns.
--
-- ARGV[1] most items that may wait, 0 for no limit
-- ARGV[2] how many items must wait for the workers to be told
-- ARGV[3] "1": the workers are told as well when the first item waits (the caller has no worker of its own)
-- ARGV[4] the time from which nobody waits for the answer any more
-- ARGV[5] number g of groups; ARGV[6..5+g] how many pairs each has. A group is taken whole or not at all, and has no
--   redis_key twice.
-- Then the pairs: redis_key, member. An empty member withdraws the key: its newest text is blank.
-- Answer: how many items wait now; with a limit {how many items wait now, a word for each group: "ok" | "full"};
--   or the error "LATE now", and nothing is taken
-- Keeps I1 (a key has one live item, and latest names it) and I2 (a superseded item is out of pending and inflight).
-- Run twice it changes nothing more, so a client may send it again when the answer was lost. A copy that the network held
-- back must not arrive after a newer text, and therefore not after the time in ARGV[4].

if now > tonumber(ARGV[4]) then
  return redis.error_reply("LATE " .. stamp(now))
end
local limit, tell_at, tell_first, groups = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == "1", tonumber(ARGV[5])
local any_dead = redis.call("EXISTS", INFO) == 1

local function tell(before, after)
  if (tell_first and before == 0 and after > 0) or (before < tell_at and after >= tell_at) then
    notice("wake", "", "")
  end
end

-- The common case, one item of a new key and no limit, takes the fewest commands.
if limit == 0 and #ARGV == 8 and ARGV[8] ~= "" and not any_dead and redis.call("HSETNX", LATEST, ARGV[7], ARGV[8]) == 1 then
  local added = redis.call("ZADD", PENDING, "NX", now, ARGV[8])
  local after = redis.call("ZCARD", PENDING)
  tell(after - added, after)
  return after
end

local before = redis.call("ZCARD", PENDING)
local score = now - #ARGV * 0.000001 -- items of one call keep their order, and none lies in the future

-- The redis_keys of `count` pairs from ARGV[first] on, and their live members.
local function known(first, count)
  local keys = {}
  for i = 1, count do
    keys[i] = ARGV[first + 2 * (i - 1)]
  end
  return keys, redis.call("HMGET", LATEST, unpack(keys))
end

-- Take in `count` pairs from ARGV[first] on.
local function admit(first, count)
  local keys, live = known(first, count)
  if any_dead then
    for i, info in ipairs(redis.call("HMGET", INFO, unpack(keys))) do
      if info then
        drop_dead_letter(keys[i])
      end
    end
  end
  local scored, named, n = {}, {}, 0
  for i = 1, count do
    local member = ARGV[first + 2 * i - 1]
    if live[i] ~= member then
      if live[i] then
        redis.call("ZREM", PENDING, live[i])
        redis.call("ZREM", INFLIGHT, live[i])
        redis.call("HDEL", CLAIMS, keys[i])
      end
      if member ~= "" then
        scored[n + 1], scored[n + 2] = score, member -- the number: Redis writes it faster than string.format
        named[n + 1], named[n + 2] = keys[i], member
        n = n + 2
        score = score + 0.000001
      elseif live[i] then
        redis.call("HDEL", LATEST, keys[i])
        notice("blank", "", cjson.encode({ keys[i] }))
      end
    end
  end
  if n > 0 then
    redis.call("ZADD", PENDING, "NX", unpack(scored)) -- NX: what another program has written keeps its time
    redis.call("HSET", LATEST, unpack(named))
  end
end

-- How many more items would wait if they were taken in.
local function growth(first, count)
  local more = 0
  local keys, live = known(first, count)
  for i = 1, #keys do
    local member = ARGV[first + 2 * i - 1]
    if live[i] ~= member then
      more = more + (member ~= "" and 1 or 0) - (live[i] and redis.call("ZSCORE", PENDING, live[i]) and 1 or 0)
    end
  end
  return more
end

local answer = { 0 }
local first = 6 + groups
for group = 1, groups do
  local pairs_left = tonumber(ARGV[5 + group])
  local stop = first + 2 * pairs_left
  local waiting = limit > 0 and redis.call("ZCARD", PENDING) or 0
  local more = 0
  if limit > 0 then
    for at = first, stop - 1, 2 * CHUNK do
      more = more + growth(at, math.min(CHUNK, (stop - at) / 2))
    end
  end
  if more > 0 and waiting + more > limit then
    answer[group + 1] = "full"
  else
    answer[group + 1] = "ok"
    for at = first, stop - 1, 2 * CHUNK do
      admit(at, math.min(CHUNK, (stop - at) / 2))
    end
  end
  first = stop
end

answer[1] = redis.call("ZCARD", PENDING)
tell(before, answer[1])
return limit > 0 and answer or answer[1]
