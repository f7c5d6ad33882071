-- Let the next claim test the provider, because this one could not; who waits for it is woken.
--
-- ARGV[1] owner of the claim; where it is not the probe, nothing changes
-- Answer: nothing

if redis.call("GET", PROBE) == ARGV[1] then
  redis.call("DEL", PROBE)
  notice("wake", ARGV[1], "")
end
