-- Tell the stamps of claimed items that may be written now: to a sink, before they are written here.
--
-- ARGV[1] JSON: in what whoever writes has to agree with others, by name; ARGV[2..] two for each item: redis_key; member
-- Answer: a word for each item: its stamp; "stale": it is not its key's latest, or no longer in flight; "differs": this
--   worker is at odds with what is kept in settings
-- Changes nothing but what is kept in settings: these are the first vectors that are written, perhaps.

local ours, held = cjson.decode(ARGV[1]), false
local differs, answer = #differing(ours, false) > 0, {}
for i = 2, #ARGV, 2 do
  local value, member = redis.call("HGET", LATEST, ARGV[i]), ARGV[i + 1]
  local word = "stale"
  if value and names(value, member) and redis.call("ZSCORE", INFLIGHT, member) then
    held = true
    word = differs and "differs" or string.match(value, "^%d+") or stamp_text(now_us) -- of the first layout: it has none
  end
  answer[#answer + 1] = word
end
if held and not differs then
  differing(ours, true)
end
return answer
