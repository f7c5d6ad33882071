-- What became of items that somebody waits for.
--
-- KEYS[10..] the users' hashes; ARGV[1] field of the vector; ARGV[2..] their redis_keys
-- Answer: two values an item: "live", "pending" or "in flight" | "dead", its reason | "done", its vector
--   | "blank", "" (its newest text was, as one of the latest notices tells) | "gone", "" (nothing tells what became of it)

local TOLD = 1000 -- so many notices are asked, and only for what nothing else tells of
local blank

local function is_blank(key)
  if not blank then
    blank = {}
    for _, entry in ipairs(redis.call("XREVRANGE", EVENTS, "+", "-", "COUNT", TOLD)) do
      local fields = entry[2]
      if fields[2] == "blank" then
        blank[fields[6] or ""] = true
      end
    end
  end
  return blank[cjson.encode({ key })]
end

local answer = {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local key = ARGV[2 + i - FIRST_FURTHER_KEY]
  local word, value = "gone", ""
  local live = redis.call("HGET", LATEST, key)
  local info = cjson.decode(not live and redis.call("HGET", INFO, key) or "{}")
  if live then
    word, value = "live", redis.call("ZSCORE", PENDING, live) and "pending" or "in flight"
  elseif info.member then
    word, value = "dead", info.reason
  else
    local vector = redis.pcall("HGET", KEYS[i], ARGV[1])
    if type(vector) == "string" then
      word, value = "done", vector
    elseif is_blank(key) then
      word = "blank"
    end
  end
  answer[#answer + 1] = word
  answer[#answer + 1] = value
end
return answer
