-- Release claimed items: they wait again under their old score, and no delivery is counted.
--
-- ARGV[1] owner of the claim, or what the names of several owners begin with (an owner's name ends with ":")
-- ARGV[2..] members; none: everything that those owners hold
-- Answer: how many items were released. What another worker holds by now stays where it is.
-- Keeps I4. A probe whose items are released lets the next claim probe at once.

local owner = ARGV[1]
local members = {}
for i = 2, #ARGV do
  members[i - 1] = ARGV[i]
end
if #members == 0 then
  members = redis.call("ZRANGE", INFLIGHT, 0, -1)
end

local released = 0
for _, member in ipairs(members) do
  local key = redis.call("ZSCORE", INFLIGHT, member) and key_of(member)
  if key then
    local score, deliveries, holder = parse(redis.call("HGET", CLAIMS, key))
    if score and string.sub(holder, 1, #owner) == owner then
      redis.call("ZREM", INFLIGHT, member)
      redis.call("ZADD", PENDING, score, member)
      if deliveries > 0 then
        redis.call("HSET", CLAIMS, key, score .. " " .. deliveries)
      else
        redis.call("HDEL", CLAIMS, key)
      end
      released = released + 1
    end
  end
end

if string.sub(redis.call("GET", PROBE) or "", 1, #owner) == owner then
  redis.call("DEL", PROBE)
end
if released > 0 then
  notice("wake", owner, "")
end
return released
