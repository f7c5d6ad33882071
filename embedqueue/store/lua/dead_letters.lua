-- Dead letters, the latest first, without the second copy of its text that stands beside each.
--
-- ARGV: offset, limit, and the bytes into which long letters have to fit, together, to be given whole
-- Answer: what is left of the bytes; then seven values for each letter: when it was rejected, the length of its member,
-- its reason, its deliveries, and its member or, where that is "", its redis_key and the beginning of its text.
-- A member that is not our JSON has no other name, so it is always given whole; nothing is left once one did not fit.
-- The script ends early, but not before the first letter, once so much was looked at that others would have to wait.

local SHORT = 4096 -- bytes: a letter up to this size is given whole, and so much of one that does not fit
local LONGEST_LOOK = 1000000 -- bytes of members: some ten milliseconds
local EACH = 1000 -- bytes that take as long to look at as the rest of a letter

local offset, limit, left = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function known_of(name)
  local info = redis.call("HGET", INFO, name)
  local fine, known = pcall(cjson.decode, info or "")
  return info and (fine and type(known) == "table" and known or {})
end

-- The text of a member that is our JSON, else false or nil.
local function text_of(member)
  local fine, pair = pcall(cjson.decode, member)
  return fine and type(pair) == "table" and type(pair.text) == "string" and pair.text
end

local answer, looked = { left }, 0
for rank = offset, offset + limit - 1 do
  local member, died_at = unpack(redis.call("ZREVRANGE", DEAD, rank, rank, "WITHSCORES"))
  if not member then
    break
  end
  local length, key = #member, key_of(member)
  local known = key and known_of(key)
  if not known or known.member ~= member then
    local foreign = known_of(member) -- Lua takes for text what is no UTF-8
    key, known = not foreign and key or nil, foreign or known or {}
  end
  local reason, text = type(known.reason) == "string" and known.reason or "", nil
  local size = length + #reason
  if size > SHORT and size <= left then
    left = left - size
  elseif size > SHORT then
    reason = string.sub(reason, 1, SHORT)
    text = length > SHORT and key and text_of(member)
    if text then
      member = ""
    elseif length > SHORT then
      left = left - size
    end
  end
  text = string.sub(text or "", 1, SHORT)
  for _, value in ipairs({ died_at, length, reason, tonumber(known.deliveries) or 0, member, key or "", text }) do
    answer[#answer + 1] = value
  end
  looked = looked + size + EACH
  if looked > LONGEST_LOOK or left < 0 then
    break
  end
end
answer[1] = left
return answer
