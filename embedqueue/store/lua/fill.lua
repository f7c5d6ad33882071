-- Texts that somebody has found in hashes and puts in, while others enqueue newer ones. Such a pair is left out where
-- something of its key is live, where its hash does not hold this very text any more, or where another vector stands there
-- than was seen: somebody else has been quicker, and his text may be newer.
--
-- KEYS[15..] the hashes of all pairs, in order
-- more.fill: text_field: of the hashes; provenance: the field of what a vector is of; seen: for each pair, what stood there
-- Answer, beside that of enqueue.lua: a character for each pair, "1" where it is left out

if more.fill then
  local fill, out = more.fill, {}
  unchanged = {}

  function unchanged.holds(pair, live)
    local hash, member = KEYS[FIRST_FURTHER_KEY + pair - 1], ARGV[6 + tonumber(ARGV[6]) + 2 * pair]
    local text, line = unpack(redis.call("HMGET", hash, fill.text_field, fill.provenance))
    local right = not (live and stands(live)) and text == cjson.decode(member).text and (line or "") == fill.seen[pair]
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
