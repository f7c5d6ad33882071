-- Reserve of the budget what a call of queries may cost, which no claim has brought.
--
-- KEYS[15] budget HASH, see budget.lua
-- ARGV[1] the terms of the budget; ARGV[2] owner: a name for this call; ARGV[3] its tokens, by estimate; ARGV[4] the words
--   of a pause during which queries go on
-- Answer: {ms, words, begun}: the ms after which it is worth asking again, because what others have in flight must be settled
--   first, or 0; why there is a pause, or ""; 1 where that has begun by this, or 0. Without either, it is reserved.
-- While there is a pause, nothing is reserved. Asked again, because the answer was lost, it reserves nothing more. A copy of
-- this command that comes when all is settled reserves once more, which nobody settles: it counts as spent.

if redis.call("HEXISTS", KEYS[FIRST_FURTHER_KEY], "hold " .. ARGV[2]) == 1 then
  return { 0, "", 0 }
end
budget.open(ARGV[1], ARGV[2])
local words = redis.call("GET", PAUSE)
if words and words ~= ARGV[4] then
  return { 0, words, 0 }
end
budget.takes_tokens(tonumber(ARGV[3]))
local status, ms = budget.close("ok", 0)
local begun = status == "budget"
return { begun and 0 or ms, begun and redis.call("GET", PAUSE) or "", begun and 1 or 0 }
