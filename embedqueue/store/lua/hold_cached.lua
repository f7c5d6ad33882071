-- Let reservations of the cache last longer, or end them. A vector that is there by now is left alone.
--
-- KEYS[12..] cache entries; ARGV[1] ms for which a reservation lasts from now on; 0 ends it
-- Answer: nothing

for i = FIRST_FURTHER_KEY, #KEYS do
  if string.sub(redis.call("GET", KEYS[i]) or "", 1, 5) == "busy " then
    redis.call("PEXPIRE", KEYS[i], ARGV[1]) -- with 0 it is gone at once
  end
end
