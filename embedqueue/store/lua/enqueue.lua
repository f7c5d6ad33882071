-- Take items in. The newest text of a key wins; what stood for that key before is gone when this returns.
--
-- ARGV[1] most items that may wait, 0 for no limit
-- ARGV[2] how many items must wait for the workers to be told
-- ARGV[3] "1": the workers are told as well when the first item waits (the caller has no worker of its own)
-- ARGV[4] sender: names whoever sends one enqueue after another; ARGV[5] number of this one, greater than all before
-- ARGV[6] number g of groups; ARGV[7..6+g] how many pairs each has. A group is taken whole or not at all, and has no
--   redis_key twice.
-- Then the pairs: redis_key, member. An empty member withdraws the key: its newest text is blank. So does "-": it shall
--   have no text any more.
-- ARGV[#ARGV] the time from which nobody waits for the answer any more
-- Answer: {how many items wait now, a stamp that no item taken in here is below, the words of the groups: "y" or "n" each,
--   and what if_changed.lua, fill.lua or since.lua adds}
--   or an error, and nothing is taken: "LATE now"; "OLD n": the sender has sent a later one; "LAYOUT n"; "SECOND word":
--   texts go to a second queue as well (or to no such, where there is no word), so another script is to be run
-- Keeps I1 (a key has one live item, and latest names it) and I2 (a superseded item is gone from every place).
-- Whatever it answers but an error, it has written, if only its sender's number: a WAIT behind it counts the writes of its
-- own connection, and would else call replicated what replicas may lack.
-- A sender awaits one enqueue at a time. So of its numbers, a smaller one than the last is a copy that the network held
-- back after the sender had given up, and is refused; the last one again is a copy or a second try of what was done, and
-- is answered from the books. A copy whose sender has sent nothing since is refused from the time in the last argument on.

local limit, tell_at, tell_first, sender = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == "1", ARGV[4]
local number, groups, deadline = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[#ARGV])
if known[1] and known[1] ~= LAYOUT then
  return redis.error_reply("LAYOUT " .. known[1])
end
last_stamp = tonumber(known[2] or 0)
if known[3] then
  local last, first, words = string.match(known[3], "^(%d+) %S+ (%d+) (%a*)$")
  if number < tonumber(last) then
    return redis.error_reply("OLD " .. stamp_text(number))
  elseif number == tonumber(last) then
    redis.call("HSET", SETTINGS, sender, known[3]) -- nothing new, but on this connection: what was done came over another
    return { redis.call("ZCARD", PENDING), first, words, unpack(unchanged and { unchanged.answer_again() } or {}) }
  end
end
if (known[4] or "") ~= second then
  return redis.error_reply("SECOND " .. (known[4] or ""))
end
if now > deadline then
  return redis.error_reply("LATE " .. seconds_text(now))
end

if patience then
  patience.begin()
end

local any_dead = redis.call("EXISTS", INFO) == 1
local first_stamp = math.max(now_us, last_stamp + 1)
local words = {}

-- Keep what the next one has to know.
local function finish(before, after)
  local first = before == 0 and after > 0 or (patience and patience.overtaken())
  if (tell_first and first) or (before < tell_at and after >= tell_at) then
    notice("wake", "", "")
  end
  words = table.concat(words)
  local least = stamp_text(first_stamp)
  local sent = ARGV[5] .. " " .. ARGV[#ARGV] .. " " .. least .. " " .. words
  redis.call("HSET", SETTINGS, "stamp", stamp_text(last_stamp), sender, sent, "layout", LAYOUT)
  return { after, least, words, unpack(unchanged and { unchanged.answer() } or {}) }
end

local before = redis.call("ZCARD", PENDING)
local score = now - #ARGV * 0.000001 -- items of one call keep their order, and none lies in the future
local gone, withdrawn, forgotten = {}, {}, {} -- stamps of items that have left; redis_keys

-- The redis_keys of `count` pairs from ARGV[first] on, and their entries in latest.
local function entries(first, count)
  local keys = {}
  for i = 1, count do
    keys[i] = ARGV[first + 2 * (i - 1)]
  end
  return keys, redis.call("HMGET", LATEST, unpack(keys))
end

-- Let a live item stand no later in line than this; `waits`: its score if it is pending. If it is in flight, it does when
-- it comes back.
local function hasten(member, key, stamp, score, waits)
  local place, before = PENDING, waits
  if not before then
    place, before = ALONE, redis.call("ZSCORE", ALONE, member)
  end
  if before then
    if tonumber(before) > score then
      redis.call("ZADD", place, score, member)
      moves(stamp, tonumber(before), score)
    end
    return
  end
  local claimed, deliveries, owner = parse_claim(redis.call("HGET", CLAIMS, key))
  if claimed and tonumber(claimed) > score then
    redis.call("HSET", CLAIMS, key, seconds_text(score) .. " " .. deliveries .. " " .. owner)
    if is_job(owner) then -- whoever looks after the job finds it by this when its time comes
      redis.call("ZADD", INFLIGHT, "XX", JOBS + score, member)
    else
      moves(stamp, tonumber(claimed), score)
    end
  end
end

-- Take in `count` pairs from ARGV[first] on, the first of which is the pair of number `pair`.
local function admit(first, count, pair)
  local keys, values = entries(first, count)
  local letters = any_dead and redis.call("HMGET", INFO, unpack(keys)) or {}
  local scored, named, n = {}, {}, 0
  for i = 1, count do
    local member, key = ARGV[first + 2 * i - 1], keys[i]
    local live, stamp, age
    if values[i] then
      live, stamp, age = entry(values[i])
    end
    local waits = live == member and redis.call("ZSCORE", PENDING, member)
    local same = waits or (live == member and stands(member))
    local left_out = not same and unchanged and unchanged.holds(pair + i - 1, live, stamp, age)
    if letters[i] and not (left_out and unchanged.keeps_letters) then
      drop_dead_letter(key)
    end
    if same then
      -- It is the newest text of the key again, newer than what another program has left since. No older than it was
      -- in any case, for the clock may have been set back.
      age = seconds_text(math.max(now, age or 0))
      hasten(member, key, stamp or 0, patience and patience.score(pair + i - 1, score) or score, waits)
      named[n + 1], named[n + 2] = key, stamp_text(stamp or next_stamp()) .. "/" .. age .. " " .. member
      n = n + 2
    elseif not left_out then
      if live then
        leaves(gone, stamp or 0, live, key)
        remove(live)
        redis.call("HDEL", CLAIMS, key)
      end
      if #member > 1 then
        local own = patience and patience.score(pair + i - 1, score) or score
        scored[#scored + 1], scored[#scored + 2] = own, member -- Redis writes the number faster than string.format
        named[n + 1], named[n + 2] = key, stamp_text(next_stamp()) .. " " .. member
        n = n + 2
        score = score + 0.000001
      elseif live then
        redis.call("HDEL", LATEST, key)
        local told = member == "" and withdrawn or forgotten
        told[#told + 1] = key
      end
    end
  end
  if n > 0 then
    redis.call("HSET", LATEST, unpack(named))
  end
  if #scored > 0 then
    redis.call("ZADD", PENDING, "LT", unpack(scored)) -- LT: what another program has written keeps its time if it is sooner
  end
end

-- How many more items would wait if they were taken in.
local function growth(first, count, pair)
  local more = 0
  local keys, values = entries(first, count)
  for i = 1, #keys do
    local member = ARGV[first + 2 * i - 1]
    local live, stamp, age
    if values[i] then
      live, stamp, age = entry(values[i])
    end
    local new = live ~= member or (live and not stands(live))
    if new and not (unchanged and unchanged.holds(pair + i - 1, live, stamp, age)) then
      more = more + (#member > 1 and 1 or 0) - (live and redis.call("ZSCORE", PENDING, live) and 1 or 0)
    end
  end
  return more
end

local start = 7 + groups
local first = start
for group = 1, groups do
  local stop = first + 2 * tonumber(ARGV[6 + group])
  local more = 0
  if limit > 0 and not twin then
    for at = first, stop - 1, 2 * CHUNK do
      more = more + growth(at, math.min(CHUNK, (stop - at) / 2), (at - start) / 2 + 1)
    end
  end
  if twin and twin.refused(group) then
    words[group] = "n" -- by the first queue: both take it or neither
  elseif more > 0 and redis.call("ZCARD", PENDING) + more > limit then
    words[group] = "n"
  else
    words[group] = "y"
    for at = first, stop - 1, 2 * CHUNK do
      admit(at, math.min(CHUNK, (stop - at) / 2), (at - start) / 2 + 1)
    end
  end
  first = stop
end

count_down(gone)
tell("blank", "", withdrawn)
tell("forgotten", "", forgotten)
return finish(before, redis.call("ZCARD", PENDING))
