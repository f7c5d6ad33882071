-- How much may still be sent. Where a queue has limits, this stands in front of the scripts that take from them, settle and
-- give back; only this file knows what is in the hash KEYS[FIRST_FURTHER_KEY], which namespaces may share:
--   NAME        "LEVEL AT SUM FIRST" of a bucket: what may go out at once, at the time AT (below 0 it owes); what has gone out
--               in the window, and the first slot that this counts
--   NAME:SLOT   what has gone out in one slot, a sixtieth of the window
--   said:NAME   the limit that the provider has told, for limits="auto"; heard:NAME: when it last did
--   closed      "UNTIL SECONDS": until when the provider wants nothing, which was so many seconds ahead
--   first       until when only what somebody waits for may go out, because that was refused
-- NAME is requests, texts or tokens, of a minute, or day, requests of a day.
--
-- The sum keeps the promise: 61 slots hold any window, so in none goes out more than the limit. The level keeps the pace:
-- it is refilled with a window's limit in 61 slots, and holds one call, or a sixtieth of the limit. Of a day there is no pace.
--
-- A cost, as scripts answer and take it, is "AT REQUESTS TEXTS TOKENS": what was taken, and when.
-- The door: open(spec), add(member), waited_for(count), full(), take() for a claim; owe(), give_back(cost), learn(said); left() to look.

do -- of its own: Lua allows 200 locals at a time
  local SLOTS = 60
  local NAMES = { "requests", "texts", "tokens", "day" }
  local COLUMNS = { requests = 1, texts = 2, tokens = 3, day = 1 }
  local WINDOWS = { requests = 60, texts = 60, tokens = 60, day = 86400 } -- seconds
  local KEPT_MS = 2 * 86400 * 1000 -- of a hash that nobody uses
  local MOST_WAIT = 62 -- seconds, a little more than a minute's limit takes; who owes for longer sends nothing: calls/tolls.py has the same
  local MOST_FIRST = 122 -- seconds, a minute's debt and its refill: what is waited for bars the others in the last of these
  local GRACE = 0.25 -- seconds by which whoever was refused first may come late
  local MOST_GATHERING = 0.5 -- seconds that what may go waits for more
  local SAID = 6 * 3600 -- seconds beyond its window for which a limit that was told counts: an account may be given more
  local NEAR = 0.000001 -- what is less than this is nothing
  local FRAME_BYTES = 26 -- of a member, beside its key and its text
  local BUCKETS = KEYS[FIRST_FURTHER_KEY]

  buckets = {}
  local opened, call = {}, {} -- those that have a limit; what one call takes at most
  local shut, closed = 0, 0 -- until when nothing may go out but what somebody waits for; or that neither

  local function slot_at(name, at)
    return math.floor(at / WINDOWS[name] * SLOTS)
  end

  local function parse_bucket(value)
    local level, at, sum, first = string.match(value or "", "^(%S+) (%S+) (%S+) (%S+)$")
    return tonumber(level), tonumber(at), tonumber(sum), tonumber(first)
  end

  local function save(name, level, at, sum, first)
    redis.call("HSET", BUCKETS, name, string.format("%.6f %.6f %.0f %.0f", level, at, sum, first))
  end

  -- Forget the slots from one to another; returns what they held.
  local function drop(name, from, to)
    local fields, sum = {}, 0
    for slot = from, to do
      fields[#fields + 1] = name .. ":" .. stamp_text(slot)
    end
    if #fields > 0 then
      for _, amount in ipairs(redis.call("HMGET", BUCKETS, unpack(fields))) do
        sum = sum + (tonumber(amount) or 0)
      end
      redis.call("HDEL", BUCKETS, unpack(fields))
    end
    return sum
  end

  local function load(name, limit, value)
    local level, at, sum, first = parse_bucket(value)
    local slot = slot_at(name, now)
    if at and at > now + SLACK then -- the clock was set back: what stands there is of no known time
      drop(name, first, first + 2 * SLOTS + 3)
      level, first = nil, nil
    end
    local bucket = { name = name, column = COLUMNS[name], limit = limit }
    if level then
      local left = sum - drop(name, first, math.min(slot - SLOTS - 1, first + 2 * SLOTS + 3))
      bucket.sum, bucket.first = first < slot - 3 * SLOTS and 0 or left, math.max(first, slot - SLOTS)
    else
      level, at, bucket.sum, bucket.first = 0, now, 0, slot -- empty at the start: nobody knows what was sent before
    end
    bucket.capacity = limit
    if name ~= "day" then
      bucket.pace = limit / WINDOWS[name] * SLOTS / (SLOTS + 1)
      bucket.capacity = math.min(limit, math.max(call[bucket.column], limit / SLOTS))
      level = math.min(bucket.capacity, level + math.max(0, now - at) * bucket.pace)
    end
    bucket.level = level
    if bucket.first ~= first then
      save(name, level, now, bucket.sum, bucket.first)
      redis.call("PEXPIRE", BUCKETS, KEPT_MS) -- at the latest a day after the last time
    end
    return bucket
  end

  -- Know the limits. spec: JSON of them by name, "call_texts" and "call_tokens" (most of a call), "auto": what was said counts.
  function buckets.open(spec)
    spec = cjson.decode(spec)
    call = { 1, spec.call_texts, spec.call_tokens }
    local found = redis.call("HMGET", BUCKETS, "first", "closed", unpack(NAMES))
    local ends, lasts = string.match(found[2] or "", "^(%S+) (%S+)$")
    shut, closed = tonumber(found[1]) or 0, tonumber(ends) or 0
    if shut > now + MOST_FIRST + GRACE then -- of a clock that was set back, as the next
      shut = 0
    end
    if closed > now + (lasts or 0) + SLACK then
      closed = 0
    end
    local said = spec.auto and redis.call("HMGET", BUCKETS, "said:requests", "said:texts", "said:tokens", "said:day",
      "heard:requests", "heard:texts", "heard:tokens", "heard:day") or {}
    for i, name in ipairs(NAMES) do
      local counts = math.abs((tonumber(said[#NAMES + i]) or 0) - now) < WINDOWS[name] + SAID
      local limit = tonumber(spec[name]) or (counts and tonumber(said[i]))
      if limit then
        opened[#opened + 1] = load(name, limit, found[2 + i])
      end
    end
  end

  -- What may go out of a bucket now.
  local function available(bucket)
    local left = bucket.limit - bucket.sum
    return bucket.pace and math.min(bucket.level, left) or left
  end

  -- The seconds until so much may go out of a bucket, or as much as it holds.
  local function seconds_until(bucket, amount)
    amount = math.min(amount, bucket.capacity)
    local seconds = bucket.pace and math.max(0, (amount - bucket.level) / bucket.pace) or 0
    local over = bucket.sum + amount - bucket.limit
    if over > NEAR then
      local fields = {}
      for slot = bucket.first, slot_at(bucket.name, now + MOST_WAIT) do -- what is owed counts from when it is sent
        fields[#fields + 1] = bucket.name .. ":" .. stamp_text(slot)
      end
      for i, gone in ipairs(redis.call("HMGET", BUCKETS, unpack(fields))) do
        over = over - (tonumber(gone) or 0)
        if over <= NEAR then
          seconds = math.max(seconds, (bucket.first + i + SLOTS) * WINDOWS[bucket.name] / SLOTS - now)
          break
        end
      end
    end
    return seconds <= NEAR and 0 or seconds
  end

  -- Book what goes out. `owed`: what is more than there is waits. Returns how many seconds.
  local function book(amounts, owed)
    local seconds = owed and math.max(0, closed - now) or 0
    for _, bucket in ipairs(opened) do
      local amount = amounts[bucket.column]
      bucket.level, bucket.sum = bucket.level - amount, bucket.sum + amount
      seconds = owed and math.max(seconds, seconds_until(bucket, 0)) or 0
    end
    local at = now + math.min(seconds, MOST_WAIT) -- when it is sent, it must be counted
    for _, bucket in ipairs(opened) do
      local amount = amounts[bucket.column]
      if amount > 0 then
        redis.call("HINCRBY", BUCKETS, bucket.name .. ":" .. stamp_text(slot_at(bucket.name, at)), stamp_text(amount))
        save(bucket.name, bucket.level, now, bucket.sum, bucket.first)
      end
    end
    return seconds, at
  end

  -- Of the items that a claim has met, in order: what the first of them take together, and where calls end.
  local sums, ends, fitting = {}, {}, 0
  local texts_of_call, tokens_of_call = 0, 0
  local urgent, known = 0, false -- how many of them, the first, somebody waits for; whether all of these are there

  local function fits(amounts)
    for _, bucket in ipairs(opened) do
      if amounts[bucket.column] > available(bucket) + NEAR then
        return false
      end
    end
    return true
  end

  function buckets.add(member, key)
    local before, n = sums[#sums] or { 0, 0, 0 }, #sums + 1
    local tokens = math.floor(math.max(0, #member - #key - FRAME_BYTES) / 4) + 1 -- values/tokens.py estimates the same
    local starts = n == 1 or texts_of_call >= call[2] or tokens_of_call + tokens > call[3]
    if starts then
      texts_of_call, tokens_of_call = 0, 0
      ends[#ends + 1] = n > 1 and n - 1 or nil
    end
    texts_of_call, tokens_of_call = texts_of_call + 1, tokens_of_call + tokens
    sums[n] = { before[1] + (starts and 1 or 0), n, before[3] + tokens }
    if fitting == n - 1 and fits(sums[n]) then
      fitting = n
    end
  end

  -- All that somebody waits for has been added: so many.
  function buckets.waited_for(count)
    urgent, known = count, true
  end

  -- Whether it is of no use to add more: a whole call is known, or as much as a bucket holds, and all does not fit.
  function buckets.full()
    local n = #sums
    if n == 0 then
      return (known and shut or closed) > now
    elseif fitting == n then
      return false
    end
    local done = #ends > 0 or n >= call[2]
    for _, bucket in ipairs(opened) do
      done = done or sums[n][bucket.column] >= bucket.capacity
    end
    return done
  end

  -- The seconds until the first `count` items may go; `part`: or until a bucket is full to that part, if that takes longer.
  local function lack(count, part)
    local seconds = 0
    for _, bucket in ipairs(opened) do
      local amount = math.max(sums[count][bucket.column], part * bucket.capacity)
      seconds = math.max(seconds, seconds_until(bucket, amount))
    end
    return seconds
  end

  -- Take what may go out now. Returns how many of the items go, the first; "SECONDS HELD" until more may go, or "": how many
  -- of those that stay somebody waits for; and the cost, or "".
  -- Whole calls go, for a backlog that went by single texts would fill no call; what somebody waits for goes when it fits.
  -- What is more than a bucket holds goes when that is full.
  function buckets.take()
    local n, kept = #sums, #sums
    local head = urgent > 0 and 1 or ends[1] or n -- what goes first: a text that is waited for, or a call
    if closed > now then
      return 0, seconds_text(closed - now) .. " 1", ""
    elseif urgent == 0 and shut > now then
      return 0, seconds_text(shut - now) .. " 0", ""
    elseif n == 0 then
      return 0, "", ""
    elseif fitting < n then
      kept = math.min(fitting, urgent)
      for _, last in ipairs(ends) do
        kept = last <= fitting and math.max(kept, last) or kept
      end
      local seconds = kept == 0 and lack(head, 0)
      if kept == 0 and seconds == 0 then
        kept = math.max(1, fitting)
      elseif kept == 0 and urgent > 0 then
        redis.call("HSET", BUCKETS, "first", seconds_text(now + seconds + GRACE))
      end
    end
    local cost, wait = "", ""
    if kept > 0 then
      local at = #opened > 0 and now or 0 -- what no bucket knows cannot be given back
      cost = string.format("%.6f %.0f %.0f %.0f", at, unpack(sums[kept]))
      book(sums[kept])
    end
    if kept < n then -- behind what goes, no more is known than that something is left
      local held = math.max(0, urgent - kept)
      local count = kept > 0 and 1 or head
      local seconds = lack(count, 0)
      if held == 0 then -- where much is allowed, several calls go with one claim
        seconds = math.max(seconds, math.min(lack(count, 0.5), MOST_GATHERING))
      end
      wait = seconds_text(seconds) .. " " .. held
    end
    return kept, wait, cost
  end

  -- Give back a cost, or a part of it, that will not be sent.
  function buckets.give_back(cost)
    local at, requests, texts, tokens = string.match(cost, "^(%S+) (%d+) (%d+) (%d+)$")
    local amounts = { tonumber(requests), tonumber(texts), tonumber(tokens) }
    for i, value in ipairs(at and redis.call("HMGET", BUCKETS, unpack(NAMES)) or {}) do
      local level, since, sum, first = parse_bucket(value)
      local amount, slot = amounts[COLUMNS[NAMES[i]]], NAMES[i] .. ":" .. stamp_text(slot_at(NAMES[i], at))
      local counted = amount > 0 and tonumber(redis.call("HGET", BUCKETS, slot) or 0)
      if level and counted and counted >= amount then -- else it counts no longer
        redis.call("HINCRBY", BUCKETS, slot, stamp_text(-amount))
        save(NAMES[i], level + amount, since, sum - amount, first)
      end
    end
  end

  -- What will be sent without having been taken before. Returns the seconds until nothing is owed, when it is to be sent,
  -- and the time under which it is counted.
  function buckets.owe(requests, texts, tokens)
    return book({ requests, texts, tokens }, true)
  end

  -- What the provider has said: JSON, "limits" and what is "left" of them by name, "closed": seconds in which it wants
  -- nothing. Returns what is left, for lower().
  function buckets.learn(said)
    said = cjson.decode(said)
    for name, limit in pairs(said.limits) do
      redis.call("HSET", BUCKETS, "said:" .. name, stamp_text(limit), "heard:" .. name, seconds_text(now))
    end
    if said.closed > 0 then
      redis.call("HSET", BUCKETS, "closed", seconds_text(now + said.closed) .. " " .. said.closed)
    end
    redis.call("PEXPIRE", BUCKETS, KEPT_MS)
    return said.left
  end

  -- Others use the same account: no more may go out of a bucket than the provider says is left.
  function buckets.lower(left)
    for _, bucket in ipairs(opened) do
      local amount = tonumber(left[bucket.name])
      if amount and bucket.pace and amount < bucket.level then
        bucket.level = amount
        save(bucket.name, bucket.level, now, bucket.sum, bucket.first)
      end
    end
  end

  -- Name, limit, what of it may still go out in the window, and the seconds until a call may, of each bucket.
  function buckets.left()
    local found = {}
    for _, bucket in ipairs(opened) do
      local seconds = math.max(closed - now, seconds_until(bucket, call[bucket.column]), 0)
      local left = stamp_text(bucket.limit - bucket.sum)
      for _, value in ipairs({ bucket.name, stamp_text(bucket.limit), left, seconds_text(seconds) }) do
        found[#found + 1] = value
      end
    end
    return found
  end
end
