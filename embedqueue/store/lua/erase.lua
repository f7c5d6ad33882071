-- Take the vector out of a hash, with what it is of, unless a newer text has come.
--
-- KEYS[15] the user's hash, whose name is the redis_key; ARGV[1] embedding_field; ARGV[2] field of the provenance, or ""
-- ARGV[3] the vector of an item of this stamp, or of a later one, stays
-- Answer: 1 if a vector was taken out, else 0
-- Where something of the key is live, its vector stays: what is live takes its place.

local line = ARGV[2] ~= "" and redis.call("HGET", KEYS[15], ARGV[2])
local stamp = tonumber(string.match(line or "", "^%S+ %x+ (%d+)$") or 0)
if live_entry(KEYS[15], {}) or stamp >= tonumber(ARGV[3]) then
  return 0
end
if ARGV[2] ~= "" then
  redis.call("HDEL", KEYS[15], ARGV[2])
end
return redis.call("HDEL", KEYS[15], ARGV[1])
