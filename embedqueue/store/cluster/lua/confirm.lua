-- Confirm that items may be written, and note that their writes are in the air from now on.
--
-- ARGV[1] owner of the claim of whoever writes; ARGV[2] JSON: in what it has to agree with others, by name
-- ARGV[3] seconds for which the writes may be in the air; ARGV[4..] two for each item: redis_key; member
-- Answer: three values for each item: "held", its stamp, the stamp above which it is too old | "stale", "", "": it is not its
--   key's latest, or no longer in flight | "differs", "", "": this worker is at odds with what is kept in settings
-- The two stamps are the same but for what another program has left: that is as old as its score says.
-- Keeps I3, with write.lua and air.lua. An item whose lease would end before its write does is held for so long.

local owner, ours, seconds = ARGV[1], cjson.decode(ARGV[2]), tonumber(ARGV[3])
local MANY = 200 -- entries of AIR from which on those are looked for that nobody asks about any more
local OLD = 3600 -- seconds after which they are dropped
local differs, held = #differing(ours, false) > 0, false
local answer, ends = {}, seconds_text(now + seconds)
for i = 4, #ARGV, 2 do
  local key, member, word, stamp, least = ARGV[i], ARGV[i + 1], "stale", "", ""
  local lease = redis.call("ZSCORE", INFLIGHT, member)
  local value = lease and redis.call("HGET", LATEST, key)
  if value and names(value, member) and differs then
    word = "differs"
  elseif value and names(value, member) then
    local _, number, age = entry(value)
    if not number then -- of the first layout
      number = next_stamp()
      age = number / 1000000
      redis.call("HSET", LATEST, key, stamp_text(number) .. " " .. member)
    end
    held = true
    word, stamp, least = "held", stamp_text(number), stamp_text(math.min(number, math.floor(age * 1000000 + 0.5)))
    if tonumber(lease) < now + seconds then
      redis.call("ZADD", INFLIGHT, ends, member)
    end
    -- A write of before may still come as well: then none of them settles the other.
    local alone = not air.read(redis.call("HGET", AIR, key))
    redis.call("HSET", AIR, key, ends .. " " .. (alone and owner or "*") .. " " .. stamp)
  elseif lease then
    disown(member, key, value)
  end
  for _, what in ipairs({ word, stamp, least }) do
    answer[#answer + 1] = what
  end
end
if held then
  differing(ours, true) -- kept with the first vectors
end
if redis.call("HLEN", AIR) > MANY then
  local _, some = unpack(redis.call("HSCAN", AIR, math.floor(now_us % 65536), "COUNT", 50))
  for i = 1, #some, 2 do
    if (tonumber(string.match(some[i + 1], "^[%d.]+")) or 0) < now - OLD then
      redis.call("HDEL", AIR, some[i])
    end
  end
end
keep_stamp()
return answer
