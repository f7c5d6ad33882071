-- Tell what became of items that somebody waits for.
--
-- KEYS[15..] the users' hashes; ARGV[1] field of the provenance, or ""
-- ARGV[2] JSON: in what whoever asks has to agree with the workers, by name; in its embedding_field stand vectors
-- ARGV[3..] three for each: redis_key, a stamp that the item is not below, the digest of its text
-- Answer: two values for each item: "live", "pending", "in flight" or "in a job" | "dead", its reason | "done", its vector
--   | "differs", "" (the workers write otherwise than whoever asks would; or did when they wrote what is there)
--   | "unproven", a vector of which nothing says what it is of
--   | "blank", "" (so was its newest text, as one of the last notices tells)
--   | "forgotten", "" (the same for a key that was)
--   | "gone", nothing tells what became of it: the kind of the last notice that tells of an end, or ""
-- It is done where the hash says that its vector is of this text, or of a newer one; or else where one of the last notices
-- tells that an item of the key was finished since. That some vector stands there proves nothing.

-- This removes nothing. But a master that was demoted, and still has connections of its time as one, refuses to write; else
-- it would tell that items are gone of which it has not heard.
redis.call("HDEL", FLUSHES, "")

local TOLD = 100 -- notices that are read, and only where nothing else tells what became of an item
local gone, told = {}, nil

-- The kind of the last notice that tells of the end of an item of the key, or "" where none is as new as the stamp.
local function last_notice(key, stamp)
  if not told then
    told = {}
    for _, entry in ipairs(redis.call("XREVRANGE", EVENTS, "+", "-", "COUNT", TOLD)) do
      local kind, body, ms = entry[2][2], entry[2][6] or "", tonumber(string.match(entry[1], "^%d+"))
      if kind == "blank" or kind == "forgotten" or kind == "done" or kind == "failed" then
        local fine, keys = pcall(cjson.decode, body)
        for _, name in ipairs(fine and type(keys) == "table" and keys or {}) do
          if type(name) == "string" then -- anybody may write into the stream
            told[name] = told[name] or { kind, ms }
          end
        end
      end
    end
  end
  local kind, ms = unpack(told[key] or { "", 0 })
  return ms >= math.floor(stamp / 1000) and kind or ""
end

local ours = cjson.decode(ARGV[2])
-- Whether vectors of a space cannot be compared with those of whoever asks; nil where it is none. Its role is the writer's
-- own affair.
local function is_foreign(space)
  local model, dimensions = string.match(space, "^(.*)/(%d+)/[^/]*$")
  return model and (model ~= (ours.model or model) or dimensions ~= (ours.dimensions or dimensions))
end

local differs = #differing(ours, false) > 0

local answer = {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local at = 3 * (i - FIRST_FURTHER_KEY)
  local key, stamp, digest = ARGV[3 + at], tonumber(ARGV[4 + at]), ARGV[5 + at]
  local word, value = "gone", ""
  local live = live_entry(key, gone)
  local info = cjson.decode(not live and redis.call("HGET", INFO, key) or "{}")
  if live then
    local claimed = redis.call("ZSCORE", INFLIGHT, (entry(live)))
    word, value = "live", claimed and (tonumber(claimed) < JOBS and "in flight" or "in a job") or "pending"
  elseif info.member then
    word, value = "dead", info.reason
  elseif differs then
    local kind = last_notice(key, stamp)
    word = (kind == "blank" or kind == "forgotten") and kind or "differs"
  else
    local vector = redis.pcall("HGET", KEYS[i], ours.embedding_field)
    vector = type(vector) == "string" and vector
    local line = vector and ARGV[1] ~= "" and redis.pcall("HGET", KEYS[i], ARGV[1])
    local space, of, written = string.match(type(line) == "string" and line or "", "^(%S+) (%x+) (%d+)$")
    if of and tonumber(written) >= stamp and is_foreign(space) then
      word = "differs" -- whoever asks has been adopted since: it was written when another model ruled
    elseif of and ((of == digest and is_foreign(space) == false) or tonumber(written) >= stamp) then
      word, value = "done", vector
    else
      local kind = last_notice(key, stamp)
      if kind == "blank" or kind == "forgotten" then
        word = kind
      elseif not vector then
        value = kind -- for whoever reads the hash elsewhere
      elseif of == digest and is_foreign(space) then
        word = "differs" -- as above; the text had been enqueued before, and kept its stamp
      elseif not of then
        word, value = kind == "done" and "done" or "unproven", vector
      end
    end
  end
  answer[#answer + 1] = word
  answer[#answer + 1] = value
end
count_down(gone)
return answer
