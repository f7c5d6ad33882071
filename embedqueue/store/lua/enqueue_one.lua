-- The common case of enqueue.lua: one item, of a key that has none, and no limit. It stands before prelude.lua, for to
-- define what is there takes Redis as long as all of this.

local unchanged, patience -- what more.lua has instead of this file
local twin, second = nil, "" -- what enqueue_both.lua has
local known = redis.call("HMGET", SETTINGS, "layout", "stamp", ARGV[4], "second")
if not known[4] and #ARGV == 10 and ARGV[1] == "0" and #ARGV[9] > 1 and known[1] == LAYOUT and now <= tonumber(ARGV[10]) then
  local before = known[3] and tonumber(string.match(known[3], "^%d+")) or -1
  if before < tonumber(ARGV[5]) and redis.call("EXISTS", INFO) == 0 then
    local stamp = string.format("%.0f", math.max(now_us, (known[2] or 0) + 1))
    if redis.call("HSETNX", LATEST, ARGV[8], stamp .. " " .. ARGV[9]) == 1 then
      local added = redis.call("ZADD", PENDING, "LT", now, ARGV[9])
      local after = redis.call("ZCARD", PENDING)
      local tell_at = tonumber(ARGV[2])
      if (ARGV[3] == "1" and added == after) or (after - added < tell_at and after >= tell_at) then
        redis.call("XADD", EVENTS, "MAXLEN", "~", EVENTS_LENGTH, "*", "kind", "wake", "by", "", "body", "")
      end
      redis.call("HSET", SETTINGS, "stamp", stamp, ARGV[4], ARGV[5] .. " " .. ARGV[10] .. " " .. stamp .. " y")
      return { after, stamp, "y" }
    end
  end
end
