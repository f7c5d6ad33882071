-- Confirm that items may be written, write their vectors, and acknowledge them: all in one step.
--
-- KEYS[15..] the users' hashes (their names are the redis_keys), one for each item
-- ARGV[1] owner of the claim of whoever writes; ARGV[2] "skip": leave a hash that is gone alone
-- ARGV[3] field that receives the provenance, or ""; ARGV[4] the space of the vectors, the first word of it
-- ARGV[5] JSON: in what whoever writes has to agree with others, by name; its embedding_field receives the vector
-- ARGV[6..] three for each item: member; digest of its text; bytes of its vector, or "" where it is that of the item before
-- Answer: a word for each item: "done"; "replaced SPACE": the same, and there was a vector of that other space; "skipped":
--   there is no hash; "stale": it is not its key's latest, or no longer in flight, nothing written; "refused ...": its hash
--   cannot take a field, nothing written, it is still in flight; "differs": this worker is at odds with what is kept in
--   settings, nothing written, it is still in flight
-- Where the owner is a job, an item that it no longer holds is "stale" as well: it went back to the live lane.
-- Keeps I3: a vector is written only here, only for a member that is in flight and that latest names.
-- Also ends the pause that this claim was probing for.

local owner, skip, provenance, space, ours = ARGV[1], ARGV[2] == "skip", ARGV[3], ARGV[4], cjson.decode(ARGV[5])
local answer, members, keys, stale, gone, ended = {}, {}, {}, {}, {}, {}
local vector
local field = ours.embedding_field
local differs = #differing(ours, false) > 0

-- The space of the vector that stands in a hash, if it is another one.
local own = space .. " "
local function other_space(key)
  local line = redis.pcall("HGET", key, provenance)
  if type(line) ~= "string" or string.sub(line, 1, #own) == own or #line >= 500 then
    return nil
  end
  local other = string.match(line, "^(%S+) %x+ %d+$")
  return other and redis.pcall("HEXISTS", key, field) == 1 and other or nil
end

local function write(key, digest, stamp)
  if skip and redis.call("EXISTS", key) == 0 then
    return "skipped"
  end
  local reply, other
  if provenance == "" then
    reply = redis.pcall("HSET", key, field, vector)
  else
    other = other_space(key)
    reply = redis.pcall("HSET", key, field, vector, provenance, space .. " " .. digest .. " " .. stamp_text(stamp))
  end
  local fault = type(reply) == "table" and reply.err and tostring(reply.err)
  if not fault then
    return other and "replaced " .. other or "done"
  elseif string.find(fault, "WRONGTYPE", 1, true) or string.find(fault, "ermission", 1, true) then
    return "refused " .. fault
  end
  return nil, reply -- Redis is full or read-only: no fault of the item, the caller tries again
end

local latest = {}
for at = FIRST_FURTHER_KEY, #KEYS, CHUNK do
  for _, value in ipairs(redis.call("HMGET", LATEST, unpack(KEYS, at, math.min(at + CHUNK - 1, #KEYS)))) do
    latest[#latest + 1] = value
  end
end
for i = 1, #latest do
  local key, member, digest = KEYS[FIRST_FURTHER_KEY + i - 1], ARGV[3 + 3 * i], ARGV[4 + 3 * i]
  local given = ARGV[5 + 3 * i]
  vector = given ~= "" and given or vector
  local word, error = "stale", nil
  local named = latest[i] and names(latest[i], member)
  local stamp, before
  if not ended[member] and redis.call("ZSCORE", INFLIGHT, member) then -- one text, of two claims, may stand here twice
    if named and is_job(owner) and select(3, parse_claim(redis.call("HGET", CLAIMS, key))) ~= owner then
      word = "stale"
    elseif named then
      before = tonumber(string.match(latest[i], "^%d+") or 0)
      stamp = before > 0 and before or next_stamp() -- of the first layout
      word = "differs"
      if not differs then
        word, error = write(key, digest, stamp)
      end
    else
      disown(member, key, latest[i]) -- an adoption will tell whether it is the newest of its key
    end
  end
  if error then
    return error
  elseif word == "done" or word == "skipped" or string.sub(word, 1, 9) == "replaced " then
    members[#members + 1], ended[member] = member, true
    keys[#keys + 1] = key
    leaves(gone, before, member, key)
  elseif word == "stale" then
    stale[#stale + 1] = key -- whoever waits for it must now ask for the newer text
  end
  answer[i] = word
end

if #members > 0 then
  differing(ours, true) -- kept with the first vector, and not by a copy that comes when all is over
end
for at = 1, #members, CHUNK do
  local last = math.min(at + CHUNK - 1, #members)
  redis.call("ZREM", INFLIGHT, unpack(members, at, last))
  redis.call("HDEL", LATEST, unpack(keys, at, last))
  redis.call("HDEL", CLAIMS, unpack(keys, at, last))
end
count_down(gone)
keep_stamp()
tell("done", owner, keys)
tell("stale", owner, stale)
if not differs then
  end_probe(owner)
end
return answer
