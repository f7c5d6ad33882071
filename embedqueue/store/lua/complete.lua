-- Write vectors and acknowledge their items, in one step.
--
-- KEYS[12..] the users' hashes (their names are the redis_keys), one for each item
-- ARGV[1] owner of the claim; ARGV[2] field that receives the vector; ARGV[3] "skip": leave a hash that is gone alone
-- ARGV[4..] two for each item: member; vector, float32 bytes, or "" where it is that of the item before
-- Answer: a word for each item: "done"; "skipped": there is no hash; "stale": it is no longer in flight, nothing written;
--   "refused ...": its hash cannot take a field, nothing written, it is still in flight
-- Keeps I3: a vector is written only here, only for a member that is in flight, which is acknowledged.
-- Also ends the pause that this claim was probing for.

local owner, field, skip = ARGV[1], ARGV[2], ARGV[3] == "skip"
local answer, members, keys, stale = {}, {}, {}, {}
local vector

for i = FIRST_FURTHER_KEY, #KEYS do
  local at = 4 + 2 * (i - FIRST_FURTHER_KEY)
  local key, member, word = KEYS[i], ARGV[at], "stale"
  vector = ARGV[at + 1] ~= "" and ARGV[at + 1] or vector
  if redis.call("ZSCORE", INFLIGHT, member) then
    word = "done"
    if skip and redis.call("EXISTS", key) == 0 then
      word = "skipped"
    else
      local reply = redis.pcall("HSET", key, field, vector)
      local fault = type(reply) == "table" and reply.err and tostring(reply.err)
      if fault and not (string.find(fault, "WRONGTYPE", 1, true) or string.find(fault, "ermission", 1, true)) then
        return reply -- Redis is full or read-only: no fault of the item, the caller tries again
      elseif fault then
        word = "refused " .. fault
      end
    end
    if word == "done" or word == "skipped" then
      members[#members + 1] = member
      keys[#keys + 1] = key
    end
  else
    stale[#stale + 1] = key -- whoever waits for it must now ask for the newer text
  end
  answer[#answer + 1] = word
end

for at = 1, #members, CHUNK do
  local last = math.min(at + CHUNK - 1, #members)
  redis.call("ZREM", INFLIGHT, unpack(members, at, last))
  redis.call("HDEL", LATEST, unpack(keys, at, last))
  redis.call("HDEL", CLAIMS, unpack(keys, at, last))
end
if #keys > 0 then
  notice("done", owner, cjson.encode(keys))
end
if #stale > 0 then
  notice("stale", owner, cjson.encode(stale))
end
end_probe(owner)
return answer
