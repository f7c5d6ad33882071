-- How things stand, in one round trip.
--
-- ARGV[1] a time, or "": also count what was enqueued until then and is not finished
-- Answer: {now, waiting, in flight, dead, oldest score or "", next lease end or "", pause in ms or -2, its reason,
--   "1" while the provider has not yet answered again, unfinished}

local unfinished = 0
if ARGV[1] ~= "" then
  unfinished = redis.call("ZCOUNT", PENDING, "-inf", ARGV[1])
  for _, member in ipairs(redis.call("ZRANGE", INFLIGHT, 0, -1)) do
    local key = key_of(member)
    local score = parse(key and redis.call("HGET", CLAIMS, key))
    if score and tonumber(score) <= tonumber(ARGV[1]) then
      unfinished = unfinished + 1
    end
  end
end
local oldest = redis.call("ZRANGE", PENDING, 0, 0, "WITHSCORES")
local ends = redis.call("ZRANGE", INFLIGHT, 0, 0, "WITHSCORES")
return {
  stamp(now), redis.call("ZCARD", PENDING), redis.call("ZCARD", INFLIGHT), redis.call("ZCARD", DEAD),
  oldest[2] or "", ends[2] or "", redis.call("PTTL", PAUSE), redis.call("GET", PAUSE) or "",
  redis.call("EXISTS", LEVEL) == 1 and "1" or "0", unfinished,
}
