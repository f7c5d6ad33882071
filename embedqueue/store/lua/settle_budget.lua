-- Settle what a claim has reserved of the budget: all of its items have ended, and it is known what was used.
--
-- KEYS[15] budget HASH, see budget.lua
-- ARGV[1] owner of the claim, or "job:NAME" of a batch job that has ended; ARGV[2] what was used, millionths of a dollar
-- Answer: 1, or 0: it was settled before, or its owner was held for dead; nothing changed
-- A copy of this command that comes late changes nothing. What was reserved on a day that is over stays there.

local amount, day, month = budget.hold_of(redis.call("HGET", KEYS[FIRST_FURTHER_KEY], "hold " .. ARGV[1]))
if not amount and is_job(ARGV[1]) then -- nothing was reserved: it is booked once, when it has ended
  local today = budget.read_sums()
  amount, day, month = 0, today.day, today.month
elseif not amount then
  return 0
end
redis.call("HDEL", KEYS[FIRST_FURTHER_KEY], "hold " .. ARGV[1])
local sums, more = budget.read_sums(), tonumber(ARGV[2]) - amount
if day == sums.day then
  sums["day:spent"] = math.max(0, sums["day:spent"] + more)
  sums.held = math.max(0, sums.held - amount)
end
if month == sums.month then
  sums["month:spent"] = math.max(0, sums["month:spent"] + more)
end
budget.keep_sums(sums)
return 1
