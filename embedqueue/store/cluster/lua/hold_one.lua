-- Let a reservation of the cache last longer, or end it. It runs in the slot of the entry.
--
-- KEYS[1] the entry; ARGV[1] ms for which it lasts from now on, 0 ends it; ARGV[2] its owner, the name of its claim
-- Answer: nothing

if redis.call("GET", KEYS[1]) == "busy " .. ARGV[2] then
  redis.call("PEXPIRE", KEYS[1], ARGV[1])
end
