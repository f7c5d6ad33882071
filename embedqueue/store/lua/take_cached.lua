-- Look vectors up in the cache, and reserve those that are missing, so that equal texts are sent once.
--
-- KEYS[FIRST_FURTHER_KEY..] cache entries
-- ARGV[1] owner, the name of the claim; ARGV[2] ms for which a reservation lasts, should its holder die
-- Answer: a value for each entry: its vector; "": it is reserved for the caller now; "busy": somebody else fills it;
--   "paused": nobody does, and the caller may not either, because the queue is paused and another call tests the provider

local owner = ARGV[1]
local mine = "busy " .. owner -- a try whose answer was lost has reserved it
local paused = redis.call("GET", PROBE) ~= owner and (pause_left() ~= -2 or redis.call("EXISTS", LEVEL) == 1)
local answer = {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local value = redis.call("GET", KEYS[i])
  local reserved = value and string.sub(value, 1, 5) == "busy "
  local most = reserved and (lease_of(value) or ARGV[2] / 1000) + SLACK -- seconds; the holder's lease may not be ours
  if not value or value == mine or (reserved and redis.call("PTTL", KEYS[i]) > most * 1000) then -- the clock was set back
    if paused then
      redis.call("DEL", KEYS[i])
      value = "paused"
    else
      redis.call("SET", KEYS[i], mine, "PX", ARGV[2])
      value = ""
    end
  elseif reserved then
    value = "busy"
  end
  answer[#answer + 1] = value
end
return answer
