-- Write beside vectors what they are of, at a person's word, where nothing says so.
--
-- KEYS[15..] the users' hashes, whose names are the redis_keys
-- ARGV[1] embedding_field; ARGV[2] field of the provenance; ARGV[3] bytes of a vector; ARGV[4..] a line for each hash
-- Answer: of how many it was written
-- Where something of the key is live, nothing is: what is live takes the vector's place.

local labelled, gone = 0, {}
for i = FIRST_FURTHER_KEY, #KEYS do
  local size = redis.pcall("HSTRLEN", KEYS[i], ARGV[1])
  if size == tonumber(ARGV[3]) and not live_entry(KEYS[i], gone) then
    labelled = labelled + redis.call("HSETNX", KEYS[i], ARGV[2], ARGV[4 + i - FIRST_FURTHER_KEY])
  end
end
count_down(gone)
return labelled
