-- Whether the caller may not fill what the cache lacks: the queue is paused, and another call tests the provider.
--
-- ARGV[1] owner, the name of the claim
-- Answer: 1 or 0

return redis.call("GET", PROBE) ~= ARGV[1] and (pause_left() ~= -2 or redis.call("EXISTS", LEVEL) == 1) and 1 or 0
