-- Texts that somebody has found somewhere and puts in, while others enqueue newer ones. Such a pair is left out, and its
-- dead letter stays, where an item of its key is newer than any that was known when it was found, whether it is live or
-- its vector is written. Not seen is a newer one that became a dead letter or was withdrawn since, or is embedded where no
-- hash tells of it; nor, once it is embedded, a text that was live then already and was enqueued again.
--
-- KEYS[15..] the hashes of all pairs, in order, unless `provenance` is ""
-- more.since: newest: for each pair, the stamp of the newest item of its key that was known; provenance: the field of what
--   a vector is of, "" where the hashes do not tell: there only what is live counts
-- Answer, beside that of enqueue.lua: a character for each pair, "1" where it is left out; one who asks again hears of none

if more.since then
  local since = more.since
  local out = since.out or {}
  since.out = out -- for a second queue, which has stamps of its own and does what the first has done
  unchanged = { keeps_letters = true }

  -- `stamp`, `age`: of what is live, as entry() gives them.
  function unchanged.holds(pair, live, stamp, age)
    if out[pair] == nil and not twin then
      local line = since.provenance ~= "" and redis.pcall("HGET", KEYS[FIRST_FURTHER_KEY + pair - 1], since.provenance)
      local digest, written = string.match(type(line) == "string" and line or "", "^%S+ ([0-9a-f]+) (%d+)$")
      written = digest and #digest == 16 and #written <= 16 and tonumber(written) or 0 -- as provenance.py reads it
      out[pair] = math.max(written, stamp or 0, math.floor((age or 0) * 1000000 + 0.5)) > since.newest[pair]
    end
    return out[pair] or false
  end

  function unchanged.answer()
    local words = {}
    for pair = 1, #since.newest do
      words[pair] = out[pair] and "1" or "0"
    end
    return table.concat(words)
  end

  unchanged.answer_again = unchanged.answer
end
