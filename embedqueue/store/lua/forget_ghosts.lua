-- Forget items that latest names and that stand nowhere: another program, or a person, has taken them away.
--
-- ARGV: redis_keys
-- Answer: how many were forgotten

local gone, keys = {}, {}
for _, key in ipairs(ARGV) do
  local value = redis.call("HGET", LATEST, key)
  if value and not live_entry(key, gone) then
    keys[#keys + 1] = key
  end
end
count_down(gone)
tell("stale", "", keys)
return #keys
