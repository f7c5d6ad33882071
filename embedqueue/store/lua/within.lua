-- Patience of their own. An item's score is the time by which it stands in line: that of its enqueue, later by as much as
-- it may wait longer than others, or earlier. So items are due in the order of their scores, each when `base` seconds
-- have passed since its score.
--
-- more.within, and more.base: what the base is from now on if none is kept, or if nothing is live that counts by it

local patience
if more.within then
  local base, head
  patience = {}

  -- To be called before the others, once it is known that this is no copy: it writes.
  function patience.begin()
    base, head = tonumber(redis.call("HGET", SETTINGS, "base")), redis.call("ZRANGE", PENDING, 0, 0)[1]
    if not base or redis.call("HLEN", LATEST) == 0 then
      base = more.base
      redis.call("HSET", SETTINGS, "base", string.format("%.17g", base))
    end
  end

  -- The score of a pair; `score`: what it would be without a patience of its own.
  function patience.score(pair, score)
    return more.within[pair] and score + more.within[pair] - base or score
  end

  -- Whether another item comes first now than before.
  function patience.overtaken()
    return redis.call("ZRANGE", PENDING, 0, 0)[1] ~= head
  end
end
