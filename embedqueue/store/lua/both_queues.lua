-- What enqueue_both.lua does with its function take_in().

local theirs = redis.call("HMGET", KEYS[23], "layout", "stamp")
if theirs[1] and theirs[1] ~= LAYOUT then
  return redis.error_reply("LAYOUT " .. theirs[1])
end
-- What is there and is no key of ours raises here, before anything is written.
redis.call("ZCARD", KEYS[15])
redis.call("ZCARD", KEYS[16])
redis.call("ZCARD", KEYS[17])
redis.call("HLEN", KEYS[18])
redis.call("HLEN", KEYS[19])
redis.call("ZCARD", KEYS[20])
redis.call("HLEN", KEYS[21])
redis.call("XREVRANGE", KEYS[22], "+", "-", "COUNT", 1)
redis.call("HLEN", KEYS[24])

local last = tonumber(known[3] and string.match(known[3], "^%d+") or -1)
local answer = take_in()
if answer.err then
  return answer
end
if last == tonumber(ARGV[5]) then -- a copy, answered from the books: the second queue has had it, or comes to it by itself
  table.insert(answer, 4, "0")
  return answer
end

local words = answer[3]
twin = {}
function twin.refused(group)
  return string.sub(words, group, group) == "n"
end
PENDING, INFLIGHT, ALONE, LATEST, CLAIMS = KEYS[15], KEYS[16], KEYS[17], KEYS[18], KEYS[19]
DEAD, INFO, EVENTS, SETTINGS, FLUSHES = KEYS[20], KEYS[21], KEYS[22], KEYS[23], KEYS[24]
known, second = { theirs[1], theirs[2], false, false }, ""

-- Which vectors the second queue writes, its settings tell, once its first is written; until then nothing is left out.
if more.unless then
  local names = { "embedding_field", "provenance_field", "model", "dimensions", "role", "vector_type" }
  local kept, all = redis.call("HMGET", SETTINGS, unpack(names)), {}
  for i, name in ipairs(names) do
    all[name] = kept[i]
  end
  all.vector_type = all.vector_type or "float32"
  if all.embedding_field and all.provenance_field and all.model and all.dimensions and all.role then
    more.unless = {
      provenance = all.provenance_field,
      space = all.model .. "/" .. all.dimensions .. "/" .. all.role,
      size = tonumber(all.dimensions) * (all.vector_type == "float16" and 2 or 4),
      terms = { embedding_field = all.embedding_field },
    }
  else
    more.unless = nil
  end
end

local other = take_in()
table.insert(answer, 4, other[2])
return answer
