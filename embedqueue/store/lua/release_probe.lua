-- Let the next claim test the provider: this one could not put it to the test.
--
-- ARGV[1] owner of the claim. Answer: nothing. Whoever is not the probe changes nothing.

if redis.call("GET", PROBE) == ARGV[1] then
  redis.call("DEL", PROBE)
end
