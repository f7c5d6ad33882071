-- Reject items: they are dead letters from now on.
--
-- ARGV[1] owner of the claim of whoever rejects
-- ARGV[2..] four for each item: owner of its claim; member; reason; "foreign" (it is not our JSON) or ""
-- Answer: a word for each item: "dead", or "stale": that very claim no longer holds it, nothing changed
-- Keeps I4: whoever lost its claim rejects nothing.
-- Also ends the pause that this claim was probing for: a provider that can tell a bad item from others is well again.

local answer, keys, gone = {}, {}, {}
for i = 2, #ARGV, 4 do
  local owner, member, word = ARGV[i], ARGV[i + 1], "stale"
  if redis.call("ZSCORE", INFLIGHT, member) then
    local key = key_of(member)
    local _, deliveries, holder = parse_claim(key and redis.call("HGET", CLAIMS, key))
    if not key or holder == owner then
      local foreign = ARGV[i + 3] == "foreign" -- told, for Lua takes for text what is no UTF-8
      reject(member, key, deliveries, ARGV[i + 2], foreign, gone)
      keys[#keys + 1] = not foreign and key or nil
      word = "dead"
    end
  end
  answer[#answer + 1] = word
end
count_down(gone)
tell("failed", ARGV[1], keys)
end_probe(ARGV[1])
return answer
