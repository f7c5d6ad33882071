-- Write beside a vector what it is of, where nothing says so. It runs in the slot of the hash.
--
-- KEYS[1] the user's hash; ARGV[1] field of the vector; ARGV[2] field of the provenance; ARGV[3] bytes of a vector; ARGV[4] the line
-- Answer: 1 if it was written, else 0

if redis.pcall("HSTRLEN", KEYS[1], ARGV[1]) ~= tonumber(ARGV[3]) then
  return 0
end
return redis.call("HSETNX", KEYS[1], ARGV[2], ARGV[4])
