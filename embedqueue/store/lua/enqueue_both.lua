-- While the vectors of a namespace are embedded anew into a second field, its texts go to two queues, by one script: to both
-- or to neither. The second queue has keys of its own. scripts.py puts this in front of a function take_in(), which is
-- enqueue.lua and what belongs to it, and both_queues.lua behind that: it calls the function for one queue and the other.
--
-- KEYS[1..14] of the first queue, KEYS[15..28] of the second, in the order of names.lua; KEYS[29..] hashes, as in
-- if_changed.lua and since.lua
-- ARGV as enqueue.lua takes them. ARGV[#ARGV - 1] is JSON, as in more.lua, and besides:
--   second: "FIELD PROVENANCE_FIELD", as it stands in settings of the first queue
-- Answer: as that of enqueue.lua for the first queue, with the stamp of the second after the third
-- The first queue's books say whether this is a copy, and its max_pending whether there is room: whoever enqueues must not
-- hear of a second queue that nobody works.

local more = cjson.decode(ARGV[#ARGV - 1])
local second, twin = more.second, nil -- twin: there while the second queue takes in what the first has taken
local known = redis.call("HMGET", SETTINGS, "layout", "stamp", ARGV[4], "second")
FIRST_FURTHER_KEY = 29

