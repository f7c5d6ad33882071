-- Let reservations of the cache last longer, or end them. What is another's by now is left alone, and so is a vector.
--
-- KEYS[FIRST_FURTHER_KEY..] cache entries
-- ARGV[1] ms for which a reservation lasts from now on; 0 ends it; ARGV[2..] the owner of each, the name of its claim
-- Answer: nothing

for i = FIRST_FURTHER_KEY, #KEYS do
  if redis.call("GET", KEYS[i]) == "busy " .. ARGV[2 + i - FIRST_FURTHER_KEY] then
    redis.call("PEXPIRE", KEYS[i], ARGV[1]) -- with 0 it is gone at once
  end
end
