-- Renew the lease of items while their call runs.
--
-- ARGV[1] worker, with its colon; ARGV[2] seconds from now; ARGV[3..] members
-- Answer: how many leases were renewed. Whoever lost a claim does not get it back here.

local owner, lease = ARGV[1], tonumber(ARGV[2])
local renewed = 0
for i = 3, #ARGV do
  local key = redis.call("ZSCORE", INFLIGHT, ARGV[i]) and key_of(ARGV[i])
  if key then
    local _, _, holder = parse_claim(redis.call("HGET", CLAIMS, key))
    if same_worker(holder, owner) then
      redis.call("ZADD", INFLIGHT, seconds_text(now + lease), ARGV[i])
      renewed = renewed + 1
    end
  end
end
if string.sub(redis.call("GET", PROBE) or "", 1, #owner) == owner then
  redis.call("PEXPIRE", PROBE, math.ceil(lease * 1000))
end
return renewed
