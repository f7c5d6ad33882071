-- Look vectors up in the cache, and reserve those that are missing, so that equal texts are sent once.
--
-- KEYS[12..] cache entries; ARGV[1] owner; ARGV[2] ms for which a reservation lasts, should its holder die
-- Answer: a value for each entry: its vector; "": it is reserved for the caller now; "busy": somebody else fills it

local answer = {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local value = redis.call("GET", KEYS[i])
  local reserved = value and string.sub(value, 1, 5) == "busy "
  local most = reserved and (lease_of(value) or ARGV[2] / 1000) + SLACK -- seconds; the holder's lease may not be ours
  if not value or (reserved and redis.call("PTTL", KEYS[i]) > most * 1000) then -- the clock was set back
    redis.call("SET", KEYS[i], "busy " .. ARGV[1], "PX", ARGV[2])
    value = ""
  elseif reserved then
    value = "busy"
  end
  answer[#answer + 1] = value
end
return answer
