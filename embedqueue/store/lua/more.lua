-- What enqueue.lua has instead of enqueue_one.lua where more is asked for than to take texts in: if_changed.lua, fill.lua,
-- since.lua and within.lua follow, each of which says what it is asked for.
--
-- ARGV[#ARGV - 1] JSON, one value for each pair in `digests` and in `within`, where these are there:
--   unless: {provenance, space, size, terms}, see if_changed.lua, and digests: of the texts; "" where a pair is taken in
--     whatever stands in its hash
--   within: seconds in which a pair is to be embedded, or false where it may wait as long as any; base: see within.lua

local twin, second = nil, "" -- what enqueue_both.lua has
local known = redis.call("HMGET", SETTINGS, "layout", "stamp", ARGV[4], "second")
local more = cjson.decode(ARGV[#ARGV - 1])
