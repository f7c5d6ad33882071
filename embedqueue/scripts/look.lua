-- What became of items that somebody waits for.
--
-- KEYS[10..] the users' hashes; ARGV[1] field of the vector; ARGV[2..] their redis_keys
-- Answer: two values an item: "live", "pending" or "in flight" | "dead", its reason | "done", its vector
--   | "gone", "" (no live member, no dead letter, no vector)

local answer = {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local key = ARGV[2 + i - FIRST_FURTHER_KEY]
  local word, value = "gone", ""
  local info = redis.call("HGET", INFO, key)
  local live = redis.call("HGET", LATEST, key)
  if live then
    word, value = "live", redis.call("ZSCORE", PENDING, live) and "pending" or "in flight"
  elseif info then
    word, value = "dead", cjson.decode(info).reason
  else
    local vector = redis.pcall("HGET", KEYS[i], ARGV[1])
    if type(vector) == "string" then
      word, value = "done", vector
    end
  end
  answer[#answer + 1] = word
  answer[#answer + 1] = value
end
return answer
