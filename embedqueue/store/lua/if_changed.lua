-- Texts that are taken in only if the vectors of their hashes are not of them already. Such a pair is left out where
-- nothing of its key is live; its dead letter is dropped all the same.
--
-- KEYS[15..] the hashes of these pairs, in order
-- more.unless: provenance: its field; space: of vectors that count; size: their bytes; terms: in what whoever enqueues has
--   to agree with the workers, by name; in its embedding_field stand vectors
-- Answer, beside that of enqueue.lua: a character for each pair, "1" where it is left out; and where these pairs are few,
--   the vectors of those. One who asks again is told how it stands now, for what was taken in may be done.

local unchanged
if more.unless then
  local FEW = 50 -- vectors that one answer holds
  local unless, hashes, left_out, further = more.unless, {}, {}, FIRST_FURTHER_KEY
  local field = unless.terms.embedding_field
  for pair, digest in ipairs(more.digests) do
    left_out[pair] = "0"
    if digest ~= "" then
      hashes[pair], further = KEYS[further], further + 1
    end
  end
  -- A text that another program has left may be newer. And the vectors of whoever is at odds with the workers are not theirs.
  local in_order = strays() == 0 and #differing(unless.terms, false) == 0
  unchanged = {}

  -- Whether a pair is left out; `live`: the member that latest names for its key, if there is one.
  function unchanged.holds(pair, live)
    left_out[pair] = "0"
    local hash = hashes[pair]
    if hash and in_order and not (live and stands(live)) then
      local line = redis.pcall("HGET", hash, unless.provenance)
      local of, digest = string.match(type(line) == "string" and line or "", "^(%S+) (%x+) %d+$")
      if of == unless.space and digest == more.digests[pair] then
        if redis.call("HSTRLEN", hash, field) == unless.size then
          left_out[pair] = "1"
        end
      end
    end
    return left_out[pair] == "1"
  end

  function unchanged.answer()
    local vectors = {}
    for pair = 1, further - FIRST_FURTHER_KEY <= FEW and #left_out or 0 do
      if left_out[pair] == "1" then
        vectors[#vectors + 1] = redis.call("HGET", hashes[pair], field)
      end
    end
    return table.concat(left_out), unpack(vectors)
  end

  function unchanged.answer_again()
    for pair = 1, #left_out do
      local value = redis.call("HGET", LATEST, ARGV[5 + tonumber(ARGV[6]) + 2 * pair])
      unchanged.holds(pair, value and entry(value))
    end
    return unchanged.answer()
  end
end
