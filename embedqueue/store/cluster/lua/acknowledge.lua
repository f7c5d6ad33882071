-- Acknowledge items whose writes are settled.
--
-- ARGV[1] owner of the claim of whoever writes; ARGV[2] "1": it is not at odds with what is kept in settings
-- ARGV[3] who tells of it: the owner, or "" where its process, too, shall hear of it
-- ARGV[4..] three for each item: redis_key; member; what became of its write: "done", its vector is there; "skipped", there is
--   no hash; "outdated", a newer text's vector is there; "stale", nothing was written; "settled", nothing was and nothing will be
-- Answer: a word for each item: the same, or "stale": it is not its key's latest any more, or no longer in flight
-- Keeps I4. Also ends the pause that this claim was probing for.

local owner = ARGV[1]
local answer, done, stale, gone = {}, {}, {}, {}
for i = 4, #ARGV, 3 do
  local key, member, word = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if word ~= "stale" then
    local _, holder = air.read(redis.call("HGET", AIR, key))
    if holder == owner then
      redis.call("HDEL", AIR, key)
    end
  end
  if word == "done" or word == "skipped" or word == "outdated" then
    local value = redis.call("ZSCORE", INFLIGHT, member) and redis.call("HGET", LATEST, key)
    if value and names(value, member) then
      redis.call("ZREM", INFLIGHT, member)
      forget(key, value, gone)
      done[#done + 1] = key
    else
      word = "stale" -- superseded while it was written
    end
  end
  if word == "stale" then
    stale[#stale + 1] = key -- whoever waits for it must now ask for the newer text
  end
  answer[#answer + 1] = word
end
count_down(gone)
tell("done", ARGV[3], done)
tell("stale", ARGV[3], stale)
if ARGV[2] == "1" then
  end_probe(owner)
end
return answer
