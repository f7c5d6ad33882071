-- Texts that somebody has found in hashes or in another queue and puts in, while others enqueue newer ones. Such a pair is
-- left out where something of its key is live, where this very text does not stand there any more, or where another vector
-- stands in its hash than was seen: somebody else has been quicker, and his text may be newer.
--
-- KEYS[15..] the hashes of all pairs, in order; and latest of the other queue, if they are of one
-- more.fill: text_field: of the hashes, "" if they are of a queue; provenance: the field of what a vector is of; seen: for
--   each pair, what stood there
-- Answer, beside that of enqueue.lua: a character for each pair, "1" where it is left out

if more.fill then
  local fill, out = more.fill, {}
  unchanged = {}

  function unchanged.holds(pair, live)
    local hash, at = KEYS[FIRST_FURTHER_KEY + pair - 1], 5 + tonumber(ARGV[6]) + 2 * pair
    local text, line = unpack(redis.call("HMGET", hash, fill.text_field, fill.provenance))
    local right = not (live and stands(live)) and (line or "") == fill.seen[pair]
    if fill.text_field == "" then
      local value = redis.call("HGET", KEYS[FIRST_FURTHER_KEY + #fill.seen], ARGV[at])
      right = right and value and names(value, ARGV[at + 1])
    else
      right = right and text == cjson.decode(ARGV[at + 1]).text
    end
    out[pair] = right and "0" or "1"
    return not right
  end

  function unchanged.answer()
    for pair = 1, #fill.seen do
      out[pair] = out[pair] or "0" -- this very text was live
    end
    return table.concat(out)
  end

  unchanged.answer_again = unchanged.answer
end
