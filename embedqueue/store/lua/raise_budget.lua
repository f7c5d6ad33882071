-- Let more be spent today, and so in this month. A queue that is parked goes on, if what waits fits in now.
--
-- KEYS[15] budget HASH, see budget.lua
-- ARGV[1] by how much, millionths of a dollar
-- Answer: nothing

local sums = budget.read_sums()
sums["day:raised"] = sums["day:raised"] + tonumber(ARGV[1])
sums["month:raised"] = sums["month:raised"] + tonumber(ARGV[1])
budget.keep_sums(sums)
budget.end_parking(math.huge)
