-- A slice of a sorted set that one script may move: Redis serves nobody else meanwhile.

-- Members with scores in a range, the lowest first: {member, score, ...}, at most so many, and not many more bytes than so many.
local function read_slice(zset, from, to, most, most_bytes)
  local list, read, count = {}, 0, 1 -- read one at first, and then as many as are not too long
  while #list < 2 * most and read < most_bytes do
    local some = redis.call("ZRANGEBYSCORE", zset, from, to, "WITHSCORES", "LIMIT", #list / 2, math.min(count, most - #list / 2))
    if #some == 0 then
      break
    end
    for i = 1, #some, 2 do
      list[#list + 1], list[#list + 2] = some[i], some[i + 1]
      read = read + #some[i]
    end
    count = math.max(1, math.min(4 * count, math.floor((most_bytes - read) * #list / 2 / read)))
  end
  return list
end
