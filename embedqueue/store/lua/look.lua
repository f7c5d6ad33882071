-- Tell what became of items that somebody waits for.
--
-- KEYS[12..] the users' hashes; ARGV[1] field of the vector; ARGV[2..] their redis_keys
-- Answer: two values for each item: "live", "pending" or "in flight" | "dead", its reason | "done", its vector
--   | "blank", "" (so was its newest text, as one of the last notices tells) | "gone", "" (nothing tells what became of it)

local TOLD = 1000 -- notices that are read, and only where nothing else tells what became of an item
local told

-- Whether the latest notice that tells of the key says that its newest text was blank.
local function is_blank(key)
  if not told then
    told = {}
    for _, entry in ipairs(redis.call("XREVRANGE", EVENTS, "+", "-", "COUNT", TOLD)) do
      local kind, body = entry[2][2], entry[2][6]
      if kind == "blank" or kind == "done" or kind == "failed" then
        local fine, keys = pcall(cjson.decode, body)
        for _, name in ipairs(fine and type(keys) == "table" and keys or {}) do
          told[name] = told[name] or kind
        end
      end
    end
  end
  return told[key] == "blank"
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
