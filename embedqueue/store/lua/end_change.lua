-- End a change to a second field: its queue takes the place of the first, or goes.
--
-- KEYS[15..28] those of the second queue, in the order of names.lua
-- ARGV[1] the second queue, as it stands in settings; ARGV[2] "finish": the second queue takes the first one's place, with
--   what its workers agree in, and the items of the first are gone; "give up": the items of the second are
-- Answer: "done"; "busy": with "finish", something of the second is in flight, and nothing has changed; "other": texts do
--   not go to this queue, and nothing has changed
-- In one step: every text that waits for its vector in the field that stays, waits afterwards (I1, I4).

if redis.call("HGET", SETTINGS, "second") ~= ARGV[1] then
  return "other"
end
local SECOND = FIRST_FURTHER_KEY - 1 -- what is to be added to the number of a key
if ARGV[2] == "finish" then
  if redis.call("ZCARD", KEYS[SECOND + 2]) > 0 then
    return "busy"
  end
  for _, i in ipairs({ 1, 2, 3, 4, 5, 6, 7 }) do
    redis.call("UNLINK", KEYS[i])
    if redis.call("EXISTS", KEYS[SECOND + i]) == 1 then
      redis.call("RENAME", KEYS[SECOND + i], KEYS[i])
    end
  end
  -- Who flushes registers anew; the pauses were of the other provider, or of its budget.
  redis.call("UNLINK", FLUSHES, PAUSE, LEVEL, PROBE, OURS)
  local names = { "embedding_field", "provenance_field", "model", "dimensions", "role", "vector_type", "base", "canary" }
  for i, value in ipairs(redis.call("HMGET", KEYS[SECOND + 9], unpack(names))) do
    if value then
      redis.call("HSET", SETTINGS, names[i], value)
    else
      redis.call("HDEL", SETTINGS, names[i])
    end
  end
  local last = redis.call("HGET", KEYS[SECOND + 9], "stamp")
  if tonumber(last or 0) > tonumber(redis.call("HGET", SETTINGS, "stamp") or 0) then
    redis.call("HSET", SETTINGS, "stamp", last)
  end
end
redis.call("HDEL", SETTINGS, "second")
redis.call("UNLINK", unpack(KEYS, SECOND + 1, SECOND + 14))
notice("wake", "", "")
return "done"
