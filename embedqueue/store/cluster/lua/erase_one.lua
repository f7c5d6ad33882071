-- Take the vector out of a hash, with what it is of. It runs in the slot of the hash.
--
-- KEYS[1] the user's hash; ARGV[1] field of the vector; ARGV[2] field of the fence; ARGV[3] the vector of an item of
--   this stamp, or of a later one, stays; ARGV[4] the time, by this node's clock, from which on it comes late
-- Answer: "1" if a vector was taken out, "0" if not; "late NOW"

local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > tonumber(ARGV[4]) then
  return string.format("late %.6f", now)
end
local line = redis.call("HGET", KEYS[1], ARGV[2])
if tonumber(string.match(line or "", " (%d+)$") or 0) >= tonumber(ARGV[3]) then
  return "0"
end
redis.call("HDEL", KEYS[1], ARGV[2])
return tostring(redis.call("HDEL", KEYS[1], ARGV[1]))
