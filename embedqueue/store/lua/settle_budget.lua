-- Settle what a claim has reserved of the budget: all of its items have ended, and it is known what was used.
--
-- KEYS[15] budget HASH, see budget.lua
-- ARGV[1] owner of the claim, or "job:NAME" of a batch job that has ended; ARGV[2] what was used, millionths of a dollar
-- Answer: 1, or 0: it was settled before, or its owner was held for dead; nothing changed
-- A copy of this command that comes late changes nothing; that of a job, for a day. What was reserved on a day that is over
-- stays there.

local BUDGET = KEYS[FIRST_FURTHER_KEY]
local sums = budget.read_sums()
local amount, day, month = budget.hold_of(redis.call("HGET", BUDGET, "hold " .. ARGV[1]))
if is_job(ARGV[1]) then -- nothing was reserved: it is booked once, when it has ended
  local all = redis.call("HGETALL", BUDGET)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 7) == "booked " and tonumber(all[i + 1]) <= now then
      redis.call("HDEL", BUDGET, all[i])
    end
  end
  if redis.call("HSETNX", BUDGET, "booked " .. ARGV[1], seconds_text(now + 86400)) == 0 then
    return 0
  end
  amount, day, month = 0, sums.day, sums.month
elseif not amount then
  return 0
end
redis.call("HDEL", BUDGET, "hold " .. ARGV[1])
local more = tonumber(ARGV[2]) - amount
if day == sums.day then
  sums["day:spent"] = math.max(0, sums["day:spent"] + more)
  sums.held = math.max(0, sums.held - amount)
end
if month == sums.month then
  sums["month:spent"] = math.max(0, sums["month:spent"] + more)
end
budget.keep_sums(sums)
return 1
