-- Put dead letters back to the end of the queue, with a clean record.
--
-- ARGV: redis_keys, or the member itself where it is not our JSON
-- Answer: how many were put back
-- Keeps I1: a key that has a newer text keeps that, and its letter is dropped. What is not our JSON becomes a stray.

local back, gone = 0, {}
for _, name in ipairs(ARGV) do
  local info = redis.call("HGET", INFO, name)
  if info then
    local ours = cjson.decode(info).member
    local member = ours or name
    redis.call("HDEL", INFO, name)
    redis.call("ZREM", DEAD, member)
    if not (ours and live_entry(name, gone)) then
      if ours then
        redis.call("HSET", LATEST, name, stamp_text(next_stamp()) .. " " .. member)
      end
      redis.call("ZADD", PENDING, seconds_text(now), member)
      back = back + 1
    end
  end
end
count_down(gone)
keep_stamp()
if back > 0 then
  notice("wake", "", "")
end
return back
