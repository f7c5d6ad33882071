-- Reject items: they are dead letters from now on.
--
-- ARGV[1] owner of the claim; then three for each item: member, reason, "foreign" (it is not our JSON) or ""
-- Answer: a word for each item: "dead", or "stale": the owner's worker no longer holds it, nothing changed
-- Keeps I4: whoever lost its claim rejects nothing.
-- Also ends the pause that this claim was probing for: a provider that can tell a bad item from others is well again.

local owner = ARGV[1]
local answer, keys = {}, {}
for i = 2, #ARGV, 3 do
  local member, word = ARGV[i], "stale"
  if redis.call("ZSCORE", INFLIGHT, member) then
    local key = key_of(member)
    local score, deliveries, holder = parse(key and redis.call("HGET", CLAIMS, key))
    if not key or same_worker(holder, owner) then
      local foreign = ARGV[i + 2] == "foreign" -- told, for Lua takes for text what is no UTF-8
      reject(member, key, score or stamp(now), deliveries, ARGV[i + 1], foreign)
      keys[#keys + 1] = not foreign and key or nil
      word = "dead"
    end
  end
  answer[#answer + 1] = word
end
if #keys > 0 then
  notice("failed", owner, cjson.encode(keys))
end
end_probe(owner)
return answer
