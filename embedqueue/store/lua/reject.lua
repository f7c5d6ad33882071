-- Give items up: they are dead letters from now on.
--
-- ARGV[1] owner of the claim; then an item each: member, reason, "foreign" (not our JSON) or ""
-- Answer: a word an item: "dead" or "stale" (no longer in flight under the owner's worker; nothing changed)
-- Keeps I4: whoever lost its claim gives up nothing. A provider that can tell a bad item from others is well again.

local owner = ARGV[1]
local answer, keys = {}, {}
for i = 2, #ARGV, 3 do
  local member, word = ARGV[i], "stale"
  if redis.call("ZSCORE", INFLIGHT, member) then
    local key = key_of(member)
    local score, deliveries, holder = parse(key and redis.call("HGET", CLAIMS, key))
    if not key or same_worker(holder, owner) then
      local foreign = ARGV[i + 2] == "foreign" -- told, for Lua takes for text what is no UTF-8
      bury(member, key, score or stamp(now), deliveries, ARGV[i + 1], foreign)
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
