-- What is spent of a budget: a part of the scripts that reserve and settle, after prelude_claims.lua.
--
-- The last of KEYS: budget HASH, in millionths of a dollar:
--   day, month                of which the next ones tell: days since 1970; 12 * year + month - 3
--   day:spent, month:spent    what was used, and the estimates of what is in flight
--   day:raised, month:raised  by how much people have raised what may be spent
--   held                      of day:spent, the estimates of what is in flight
--   hold OWNER                "AMOUNT DAY MONTH UNTIL": what a claim has reserved and not settled; from UNTIL on it
--                             counts as spent, for its owner has died
--   booked job:NAME           until when it is known that what a batch job has cost is in the sums
--   parked                    "NEED WORDS": what did not fit, and the words of the pause that was begun for it
-- Keeps: what is spent is above a limit by no more than what one call costs beyond its estimate. So claims go by their
-- estimates while the texts in flight could have as many tokens as bytes, and then call by call.
-- The door: open(terms, owner), lost(holder), takes(member, key), refused(), keep(count), close(status, pause_ms) for a claim;
-- open(), takes_tokens(tokens) and close() for a call of queries, which no claim has brought;
-- read_sums(), keep_sums(sums), hold_of(value), end_parking(room) to settle and to raise.

do -- of its own: Lua allows 200 locals at a time
  local BUDGET = KEYS[#KEYS]
  local BYTES_PER_TOKEN = 4 -- of an estimate; values/tokens.py has the same. No text has more tokens than bytes.
  local MEMBER_BYTES = 26 -- of a member beside its redis_key and its text
  local DAY = 86400 -- seconds
  local HOLD_SECONDS = 1200 -- twice as long as a try may take
  local WAIT_MS = 500 -- after which a claim looks again whether what is in flight was settled

  budget = {}

  -- 12 * year + month - 3 of a day since 1970 (Hinnant, "chrono-compatible low-level date algorithms").
  local function month_of(day)
    local era = math.floor((day + 719468) / 146097)
    local of_era = day + 719468 - era * 146097
    local years = of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)
    local year = math.floor(years / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    return (year + era * 400) * 12 + math.floor((5 * of_year + 2) / 153)
  end

  local function dollars(amount)
    local text = string.format(amount < 1000000 and "%.6f" or "%.2f", amount / 1000000)
    return "$" .. (amount < 1000000 and string.gsub(string.gsub(text, "0+$", ""), "%.$", "") or text)
  end

  -- The sums of this day and this month, and whether that day is new: it begins with nothing spent. Where the clock was set
  -- back, a day that has begun goes on.
  function budget.read_sums()
    local names = { "day", "month", "day:spent", "month:spent", "day:raised", "month:raised", "held" }
    local kept, sums = redis.call("HMGET", BUDGET, unpack(names)), {}
    for i, name in ipairs(names) do
      sums[name] = tonumber(kept[i] or 0)
    end
    local today, is_new = math.floor(now / DAY), false
    for name, current in pairs({ day = today, month = month_of(today) }) do
      if current > sums[name] or current < sums[name] - 1 then
        sums[name], sums[name .. ":spent"], sums[name .. ":raised"] = current, 0, 0
        if name == "day" then
          sums.held, is_new = 0, true
        end
      end
    end
    return sums, is_new
  end

  function budget.keep_sums(sums)
    local fields = {}
    for name, value in pairs(sums) do
      fields[#fields + 1] = name
      fields[#fields + 1] = string.format("%.6f", value)
    end
    redis.call("HSET", BUDGET, unpack(fields))
  end

  -- What a claim has reserved: amount, day, month, until; nil where nothing is known of it any more.
  function budget.hold_of(value)
    local amount, day, month, ends = string.match(value or "", "^(%S+) (%S+) (%S+) (%S+)$")
    return tonumber(amount), tonumber(day), tonumber(month), tonumber(ends)
  end

  -- End the pause that was begun because the budget is spent, if what did not fit fits into `room` now: a limit was set
  -- higher, or raised.
  function budget.end_parking(room)
    local parked = redis.call("HGET", BUDGET, "parked")
    local need, words = string.match(parked or "", "^(%S+) (.*)$")
    if need and redis.call("GET", PAUSE) ~= words then
      redis.call("HDEL", BUDGET, "parked") -- it has ended, or somebody has ended it
    elseif need and room >= tonumber(need) then
      redis.call("HDEL", BUDGET, "parked")
      redis.call("DEL", PAUSE, OURS)
      notice("wake", "", "")
    end
  end

  -- A budget in which a claim reserves what its items may cost. `terms`: "PRICE DAY MONTH TEXTS TOKENS": of a token; what
  -- may be spent in a day and in a month, or "-"; how many texts and estimated tokens one call holds.
  function budget.open(terms, owner)
    local price, per_day, per_month, texts, tokens = string.match(terms, "^(%S+) (%S+) (%S+) (%S+) (%S+)$")
    price, per_day, per_month = tonumber(price), tonumber(per_day), tonumber(per_month)
    local sums, is_new = budget.read_sums()
    local room = math.min(
      per_day and per_day + sums["day:raised"] - sums["day:spent"] or math.huge,
      per_month and per_month + sums["month:raised"] - sums["month:spent"] or math.huge
    )
    local taken, count, need = 0, 0, nil
    local sums_of = {} -- what the first of the items take together
    local by_call, looked, changed = false, false, false
    budget.end_parking(room)

    -- Whether an amount fits, however many tokens the texts in flight turn out to have.
    local function is_sure(amount)
      return room - taken - amount - (BYTES_PER_TOKEN - 1) * (sums.held + taken + amount) >= 0
    end

    -- What is in flight, without what dead owners have left: that counts as spent.
    local function look()
      local all, held = redis.call("HGETALL", BUDGET), 0
      for i = 1, #all, 2 do
        if string.sub(all[i], 1, 5) == "hold " then
          local amount, day, _, ends = budget.hold_of(all[i + 1])
          if not ends or ends <= now then
            redis.call("HDEL", BUDGET, all[i])
          elseif day == sums.day then
            held = held + amount
          end
        end
      end
      sums.held, looked, changed = held, true, true
    end

    if is_new then
      look()
    end

    -- The lease of a claim has run out: what it has reserved counts as spent.
    function budget.lost(holder)
      local amount, day = budget.hold_of(redis.call("HGET", BUDGET, "hold " .. holder))
      if amount then
        redis.call("HDEL", BUDGET, "hold " .. holder)
        sums.held, changed = math.max(0, sums.held - (day == sums.day and amount or 0)), true
      end
    end

    -- Whether an item may be claimed as well; then it is reserved.
    function budget.takes(member, key)
      return budget.takes_tokens(math.max(1, math.floor((#member - #key - MEMBER_BYTES) / BYTES_PER_TOKEN) + 1))
    end

    -- Whether what has so many tokens, by estimate, may be sent as well; then it is reserved.
    function budget.takes_tokens(tokens_of_it)
      local amount = tokens_of_it * price
      local sure = not by_call and is_sure(amount)
      if not (sure or looked) then
        look()
        sure = not by_call and is_sure(amount)
      end
      if not sure then
        local first = count == 0
        by_call = by_call or (first and sums.held <= 0)
        local fits = first or (count < tonumber(texts) and taken + amount <= tonumber(tokens) * price)
        if not (by_call and fits and room - taken - amount >= 0) then
          need = taken + amount
          return false
        end
      end
      taken, count = taken + amount, count + 1
      sums_of[count] = taken
      return true
    end

    -- Whether something did not fit: nothing more is claimed.
    function budget.refused()
      return need ~= nil
    end

    -- Of the items that it has taken, only the first so many are claimed. Then there is room for what did not fit behind them.
    function budget.keep(kept)
      if kept < count then
        taken, count, need = sums_of[kept] or 0, kept, nil
      end
    end

    -- Nobody claims any more, until the day or the month is over. Returns the ms.
    local function park()
      local of_month = per_month and per_month + sums["month:raised"] - sums["month:spent"] < need
      local day = sums.day + 1
      while of_month and month_of(day) == sums.month do
        day = day + 1
      end
      local name = of_month and "month" or "day"
      local limit = (of_month and per_month or per_day) + sums[name .. ":raised"]
      local words = "budget: " .. dollars(sums[name .. ":spent"]) .. " of " .. dollars(limit) .. " for the " .. name
        .. " are spent, and the next text would cost about " .. dollars(need) .. "; it goes on "
        .. (of_month and "on the first of the month" or "at midnight") .. " (UTC)"
      local ms = math.ceil((day * DAY - now) * 1000)
      pause(words, ms)
      redis.call("HSET", BUDGET, "parked", string.format("%.6f ", need) .. words)
      notice("wake", owner, "")
      notice("paused", owner, cjson.encode({ reason = words }))
      return ms
    end

    -- Keep what was reserved. Returns the status of the claim and the ms of the pause, which may be others now.
    function budget.close(status, pause_ms)
      if count > 0 then
        for _, name in ipairs({ "day:spent", "month:spent", "held" }) do
          sums[name] = sums[name] + taken
        end
        local hold = string.format("%.6f %.0f %.0f ", taken, sums.day, sums.month) .. seconds_text(now + HOLD_SECONDS)
        redis.call("HSET", BUDGET, "hold " .. owner, hold)
      end
      if count > 0 or changed then
        budget.keep_sums(sums)
      end
      if need and count == 0 and (status == "ok" or status == "probe") then
        if sums.held > 0 then
          return "paused", WAIT_MS
        end
        budget.keep_sums(sums)
        return "budget", park()
      end
      return status, pause_ms
    end
  end
end
