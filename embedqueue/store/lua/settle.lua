-- Settle what a claim could not know, in the buckets, and learn what the provider has said of its limits.
--
-- KEYS[15] the buckets; ARGV[1] the limits, as buckets.open() takes them
-- ARGV[2] "REQUESTS TEXTS TOKENS" that no claim has taken and that are sent as soon as they are paid, or ""; ARGV[3] a cost to give back, or ""
-- ARGV[4] JSON of what was said, as buckets.learn() takes it, or ""
-- Answer: the seconds until the buckets owe nothing, and the time under which the debt is counted, as text

local left = ARGV[4] ~= "" and buckets.learn(ARGV[4])
if ARGV[3] ~= "" then
  buckets.give_back(ARGV[3])
end
buckets.open(ARGV[1])
if left then
  buckets.lower(left)
end
local requests, texts, tokens = string.match(ARGV[2], "^(%d+) (%d+) (%d+)$")
local seconds, at = buckets.owe(tonumber(requests or 0), tonumber(texts or 0), tonumber(tokens or 0))
return { seconds_text(seconds), seconds_text(at) }
