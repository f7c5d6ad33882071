-- Drop dead letters for good.
--
-- ARGV: redis_keys, or the member itself where it is not our JSON
-- Answer: how many were dropped

local dropped = 0
for _, name in ipairs(ARGV) do
  local info = redis.call("HGET", INFO, name)
  if info then
    redis.call("HDEL", INFO, name)
    redis.call("ZREM", DEAD, cjson.decode(info).member or name)
    dropped = dropped + 1
  end
end
return dropped
