-- Add figures to those of a minute and of a day.
--
-- KEYS[10], KEYS[11] STRING of the minute and of the day: a JSON object of numbers
-- ARGV[1] JSON object of what to add; ARGV[2], ARGV[3] ms after which the minute and the day are forgotten
-- Answer: nothing. One read and one write a key, however many figures there are.

local MOST_FIGURES = 300 -- whatever names come: a key stays small

for i = 0, 1 do
  local key = KEYS[FIRST_FURTHER_KEY + i]
  local _, sums = pcall(cjson.decode, redis.call("GET", key) or "{}") -- what is no JSON gives a message
  if type(sums) ~= "table" then
    sums = {} -- somebody else's: figures are not worth an error
  end
  local names = 0
  for _ in pairs(sums) do
    names = names + 1
  end
  for name, more in pairs(cjson.decode(ARGV[1])) do
    if sums[name] then
      sums[name] = (tonumber(sums[name]) or 0) + more
    elseif names < MOST_FIGURES then
      names = names + 1
      sums[name] = more
    end
  end
  redis.call("SET", key, cjson.encode(sums), "PX", ARGV[2 + i])
end
