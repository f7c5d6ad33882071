-- Note that a worker works. The whole key expires where nobody says so any more.
--
-- KEYS[15] workers; ARGV[1] name of the worker; ARGV[2] seconds for which that holds if nothing more is heard of it
-- ARGV[3] seconds since it began to work; ARGV[4] FACTS: JSON, as store/workers.py has it
-- ARGV[5] "1": drop what workers that are gone have left; a worker does so once, for it may take the place of one of them
-- Answer: nothing

local WORKERS, seconds = KEYS[FIRST_FURTHER_KEY], tonumber(ARGV[2])
if ARGV[5] == "1" then
  local all = redis.call("HGETALL", WORKERS)
  for i = 1, #all, 2 do
    if not works(all[i + 1]) then
      redis.call("HDEL", WORKERS, all[i])
    end
  end
end
local since = seconds_text(now - tonumber(ARGV[3]))
redis.call("HSET", WORKERS, ARGV[1], table.concat({ seconds_text(now + seconds), ARGV[2], since, ARGV[4] }, " "))
redis.call("PEXPIRE", WORKERS, math.ceil(seconds * 1000))
