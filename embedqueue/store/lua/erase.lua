-- Take the vector out of a hash, with what it is of, unless a newer text has come.
--
-- KEYS[15] the user's hash, whose name is the redis_key; ARGV[1] embedding_field; ARGV[2] field of the provenance, or ""
-- ARGV[3] the vector of an item of this stamp, or of a later one, stays
-- ARGV[4] the time from which the caller waits for the answer no longer: what comes later is a copy, and somebody may have
--   found meanwhile, by if_changed, that this vector is what he wants
-- Answer: 1 if a vector was taken out, else 0; or the error "LATE now", and nothing has changed
-- Where something of the key is live, its vector stays: what is live takes its place.

if now > tonumber(ARGV[4]) then
  return redis.error_reply("LATE " .. seconds_text(now))
end
local line = ARGV[2] ~= "" and redis.call("HGET", KEYS[FIRST_FURTHER_KEY], ARGV[2])
local stamp = tonumber(string.match(line or "", "^%S+ %x+ (%d+)$") or 0)
local gone = {}
local live = live_entry(KEYS[FIRST_FURTHER_KEY], gone)
count_down(gone)
if live or stamp >= tonumber(ARGV[3]) then
  return 0
end
if ARGV[2] ~= "" then
  redis.call("HDEL", KEYS[FIRST_FURTHER_KEY], ARGV[2])
end
return redis.call("HDEL", KEYS[FIRST_FURTHER_KEY], ARGV[1])
