-- Writes that are in the air: the part of a claim that leaves a newer text of a key alone while an older one's vector may
-- still come. Else that vector could come after the newer one's, into a hash that was deleted in between, and its fence with it.

do
  local LONGEST = 5 -- seconds for which a write may be in the air; cluster/completion.py has the same
  local LOOK = 0.05 -- seconds after which a claim that could take nothing else looks again
  local barred = false

  air = {}

  -- Until when a write is in the air, or nil where none can come any more, the claim that writes, and the stamp of its item,
  -- by an entry of AIR. One that seems to hold for too long tells of a clock that was set back.
  function air.read(value)
    local ends, owner, stamp = string.match(value or "", "^([%d.]+) (%S+) (%d+)$")
    if not ends or tonumber(ends) <= now or tonumber(ends) > now + LONGEST + SLACK then
      return nil, owner, stamp
    end
    return tonumber(ends), owner, stamp
  end

  -- Which of some keys have to stay; `values`: their entries in latest.
  function air.bars(keys, values)
    local found = {}
    if redis.call("EXISTS", AIR) == 1 then
      for i, value in ipairs(redis.call("HMGET", AIR, unpack(keys))) do
        local ends, _, stamp = air.read(value)
        if ends and stamp ~= string.match(values[i] or "", "^%d+") then
          found[i], barred = true, true
        end
      end
    end
    return found
  end

  function air.wait()
    return barred and string.format("%.3f 1", LOOK) or ""
  end
end
