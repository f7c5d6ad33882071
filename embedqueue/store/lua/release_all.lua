-- Release what a claim, or a whole worker, holds and nobody has a list of, a slice of all that is in flight at a time.
--
-- ARGV[1] owner of the claim, or "WORKER:" for all of a worker's; ARGV[2] cursor: "0" begins, then what the last answer gave
-- ARGV[3] of a whole worker, what it gives back to the buckets in the hash KEYS[15], because it will not be sent: a cost, or ""
-- Answer: {cursor, "0" at the end; how many items were released}
-- The claim is closed by this: if it is still on its way, it is refused when it comes. A probe of theirs is over as well:
-- the next claim probes at once, and who waits for it is woken. What one claim has taken from the buckets is given back, for nobody has sent it.

local SLICE = 200 -- members, which may be long

local owner = ARGV[1]
local number, worker = claim_number(owner)
local last, cost = last_claim(worker)
close_claims(worker, math.max(number or CLOSED, last), lease_of(owner) or 0)
if buckets and (number or CLOSED) > last then
  buckets.give_back(number and "" or ARGV[3]) -- a second time, it is not above the last one any more
elseif buckets and number == last then
  buckets.give_back(cost) -- and the books forget it here
end
local slice = redis.call("ZSCAN", INFLIGHT, ARGV[2], "COUNT", SLICE)
local released = 0
for i = 1, #slice[2], 2 do
  if tonumber(slice[2][i + 1]) < JOBS then
    released = released + release(slice[2][i], owner)
  end
end
if string.sub(redis.call("GET", PROBE) or "", 1, #owner) == owner then
  redis.call("DEL", PROBE)
  notice("wake", owner, "")
end
if released > 0 then
  notice("flush", owner, "") -- they were due when they were claimed
end
return { slice[1], released }
