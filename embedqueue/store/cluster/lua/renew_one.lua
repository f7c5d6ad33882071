-- Write a field of a hash once more as it is, for WAIT counts what its own connection has written. It runs in the slot of the hash.
--
-- KEYS[1] the user's hash; ARGV[1] the field; ARGV[2] its value
-- Answer: 1; 0, and nothing is written, where the value is another

if redis.call("HGET", KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call("HSET", KEYS[1], ARGV[1], ARGV[2])
return 1
