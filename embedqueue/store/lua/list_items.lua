-- Items of one place in its order, some at a time, without their texts. Reads only.
--
-- ARGV[1] "pending" | "inflight" | "alone"
-- ARGV[2] where the page begins: "rank": at ARGV[3], counted from 0; a page that would begin behind the end is the last one
--   | "after" | "before": behind, or before, an item of the score ARGV[3] and of the redis_key ARGV[5]; where that item
--   stands there no more, or ARGV[5] is "": as if ARGV[4] others of that score stood before it
-- ARGV[6] most items
-- ARGV[7] bytes of each text that are wanted, 0 for none
-- Answer: {now, items in this place, rank of the first one told}; then eight values for each: its score, the length of its
--   member, its redis_key or "" where it is not our JSON, when it was enqueued, its entry in claims or "", the beginning
--   of its text or "", how many others of its score stand before it, 1 if latest names it (else nobody has adopted it yet)
-- Items come and go meanwhile. Who has seen the last item of a page and asks for what is behind it misses nothing: what is
-- claimed goes from the front, so where that item is gone, all of its score that stood before it are gone as well.
-- The script ends early, but not before the first item, once so much was looked at that others would have to wait.

local LONGEST_LOOK = 1000000 -- bytes of members: some ten milliseconds
local EACH = 1000 -- bytes that take as long to look at as the rest of an item

local place = ({ pending = PENDING, inflight = INFLIGHT, alone = ALONE })[ARGV[1]]
local limit, bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local total = redis.call("ZCARD", place)

-- How many stand before all of this score.
local function before(score)
  return redis.call("ZCOUNT", place, "-inf", "(" .. score)
end

-- The rank of the item that ARGV names, and whether it stands there.
local function named()
  local value = ARGV[5] ~= "" and redis.call("HGET", LATEST, ARGV[5])
  local member = value and entry(value)
  if member and tonumber(redis.call("ZSCORE", place, member) or "nan") == tonumber(ARGV[3]) then
    return redis.call("ZRANK", place, member), true
  end
  return before(ARGV[3]) + (ARGV[5] == "" and tonumber(ARGV[4]) or 0), false
end

local first
if ARGV[2] == "rank" then
  first = math.min(tonumber(ARGV[3]), math.floor(math.max(0, total - 1) / limit) * limit)
else
  local rank, stands = named()
  first = ARGV[2] == "after" and (rank + (stands and 1 or 0)) or math.max(0, rank - limit)
end

local answer, looked, score_before, ties = { seconds_text(now), total, first }, 0, nil, 0
for rank = first, first + limit - 1 do
  local member, score = unpack(redis.call("ZRANGE", place, rank, rank, "WITHSCORES"))
  if not member then
    break
  end
  if score ~= score_before then
    ties, score_before = rank - before(score), score
  end
  local key = key_of(member)
  local value = key and redis.call("HGET", LATEST, key)
  local since = enqueued_at(value, member, ARGV[1] == "inflight" and now or score)
  local text = ""
  if bytes > 0 then
    local fine, pair = pcall(cjson.decode, member)
    text = fine and type(pair) == "table" and type(pair.text) == "string" and pair.text or (key and "" or member)
  end
  local claim = key and redis.call("HGET", CLAIMS, key) or ""
  local values = { score, #member, key or "", seconds_text(since), claim, string.sub(text, 1, bytes), ties, value and names(value, member) and 1 or 0 }
  for _, value in ipairs(values) do
    answer[#answer + 1] = value
  end
  ties = ties + 1
  looked = looked + 2 * #member + EACH -- latest has it again
  if looked > LONGEST_LOOK then
    break
  end
end
return answer
