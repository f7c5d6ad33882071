-- Write a vector into a hash, unless a newer text's vector is there, or it comes late. It runs in the slot of the hash.
--
-- KEYS[1] the user's hash; ARGV[1] field of the vector; ARGV[2] field of the fence; ARGV[3] what is written there: it ends with
--   the digest of the text and the stamp; ARGV[4] the stamp; ARGV[5] the digest; ARGV[6] the stamp above which it is too old
-- ARGV[7] "skip": leave a hash that is gone alone; ARGV[8] bytes of the vector
-- ARGV[9] the time, by this node's clock, from which on it comes late
-- Answer: "done"; "replaced SPACE", the same, and there was a vector of that other space; "skipped"; "outdated", a newer text's
--   vector is there; "ahead", there is one of which the queue knows nothing; "refused ...", its hash cannot take a field; "late NOW"
-- Keeps I3: the stamp in the hash never falls. Done twice, it is as done once.

local time = redis.call("TIME")
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
if now > tonumber(ARGV[9]) then
  return string.format("late %.6f", now)
end

-- What a call has against the hash itself; nothing where it has answered. Else Redis is full or read-only, which passes.
local function refusal(reply)
  local fault = type(reply) == "table" and reply.err and tostring(reply.err)
  if fault and (string.find(fault, "WRONGTYPE", 1, true) or string.find(fault, "ermission", 1, true)) then
    return "refused " .. fault
  end
end

if ARGV[7] == "skip" and redis.call("EXISTS", KEYS[1]) == 0 then
  return "skipped"
end
local line = redis.pcall("HGET", KEYS[1], ARGV[2]) or ""
if type(line) == "table" then
  return refusal(line) or line
end
local digest, fence = string.match(line, "(%x+) (%d+)$")
local stamp = tonumber(ARGV[4])
fence = tonumber(fence or 0)
if fence > stamp or (fence == stamp and digest ~= ARGV[5]) then
  return "ahead"
elseif fence < stamp and fence > tonumber(ARGV[6]) then
  return "outdated"
end
local space = string.match(ARGV[3], "^(%S+) %x+ %d+$") -- a fence alone has none
local other = space and #line < 500 and string.match(line, "^(%S+) %x+ %d+$") or space
other = other ~= space and redis.pcall("HEXISTS", KEYS[1], ARGV[1]) == 1 and other or nil
local reply = redis.pcall("HSET", KEYS[1], ARGV[1], ARGV[8], ARGV[2], ARGV[3])
if type(reply) == "table" then
  return refusal(reply) or reply
end
return other and "replaced " .. other or "done"
