-- Change nothing, by commands that write. So whoever asks learns whether scripts may run, and may write, before an item is
-- entrusted to them.
--
-- Answer: nothing; or what Redis has against it, or the error "LAYOUT n"

local layout = redis.call("HGET", SETTINGS, "layout")
if layout and layout ~= LAYOUT then
  return redis.error_reply("LAYOUT " .. layout)
end
redis.call("ZADD", PENDING, "XX", now, "no member of a queue") -- one that is there already would be changed
redis.call("HDEL", FLUSHES, "")
