-- Find items, or dead letters, by a part of their redis_key: one step of a search. Reads only.
--
-- ARGV[1] "live" | "dead"
-- ARGV[2] "0", or the cursor that the step before has answered
-- ARGV[3] what the key has to be like, a pattern as HSCAN takes it
-- ARGV[4] so many are enough
-- Answer: {cursor, "0" when all was looked at; redis_key, and where it stands: "pending", "inflight", "job" (a batch job),
--   "alone", "dead" or "" where another program has taken it away, ...}. A key may be told twice while others come and go.
-- A dead letter that is not our JSON has no redis_key and is not found; nor is what another program has left and nobody has
-- adopted yet.

local FIELDS = 2000 -- that one step looks at: a millisecond
local SLICE = 10 -- fields that HSCAN looks at together, of which it hands over those that match, with their texts
local LONGEST_LOOK = 1000000 -- bytes of these

local hash, cursor, found, looked, bytes = ARGV[1] == "live" and LATEST or INFO, ARGV[2], {}, 0, 0
repeat
  local step = redis.call("HSCAN", hash, cursor, "MATCH", ARGV[3], "COUNT", SLICE)
  cursor = step[1]
  for i = 1, #step[2], 2 do
    local key, value, place = step[2][i], step[2][i + 1], "dead"
    bytes = bytes + #value
    if hash == LATEST then
      local member = entry(value)
      local ends = tonumber(redis.call("ZSCORE", INFLIGHT, member) or nil)
      place = ends and (ends >= JOBS and "job" or "inflight") or redis.call("ZSCORE", PENDING, member) and "pending"
        or redis.call("ZSCORE", ALONE, member) and "alone" or ""
    elseif not string.find(value, '"member"', 1, true) then
      place = nil
    end
    if place then
      found[#found + 1] = key
      found[#found + 1] = place
    end
  end
  looked = looked + SLICE
until cursor == "0" or #found >= 2 * tonumber(ARGV[4]) or looked >= FIELDS or bytes > LONGEST_LOOK
return { cursor, unpack(found) }
