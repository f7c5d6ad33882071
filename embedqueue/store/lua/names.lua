-- What every script begins with: scripts.py puts this text in front of each of them, and prelude.lua behind it.
--
-- KEYS, in every script alike (further KEYS are the users' hashes, cache entries, the buckets of the limits, the budget, or the workers):
--   1 pending ZSET     member -> Unix time of the enqueue
--   2 inflight ZSET    member -> end of its lease; of an item in a provider's batch job: JOBS + the score that it had
--   3 alone ZSET       member -> Unix time of the enqueue, of items on their last delivery: each is claimed alone
--   4 latest HASH      redis_key -> "STAMP MEMBER" of its one live item, or "STAMP/SCORE MEMBER" where the time that
--                      counts as that of its enqueue is not the stamp's: another program has written the member, or
--                      it was enqueued again, which makes it no older
--   5 claims HASH      redis_key -> "score deliveries owner"; no owner while the item waits again; an owner is
--                      "WORKER:NUMBER/SECONDS:", with the seconds of its lease; or "job:NAME", of an item in a job
--   6 dead ZSET        member -> when it was rejected
--   7 dead:info HASH   redis_key -> JSON: member, reason, deliveries; member -> the same, where it is not ours
--   8 events STREAM    kind, by (the worker that tells), body (JSON list of redis_keys, or a word)
--   9 settings HASH    layout; stamp, the last one; base, see within.lua; embedding_field, provenance_field, model,
--                      dimensions, role, vector_type, in which processes must agree; economy, until when nothing goes
--                      into jobs; canary, of which only a check
--                      knows; second, the queue that texts go to as well, and reading, what a change of the field has
--                      cut over to, as store/change.py has them; cursor, up to where the following was tidied; and of each process that enqueues or
--                      claims: its name -> "NUMBER UNTIL ...", the number of its last command and until when that
--                      must be kept
--  10 flushes HASH     name of a flush -> "STAMP LEFT UNTIL": how many items of that stamp or before are not finished.
--                      One that leaves jobs alone has a name that ends with "/BOUND": items above that score do not count
--  11 pause STRING     why nobody claims, in words for people; while it exists nobody does
--  12 pause:level STRING   how often in a row the provider has failed
--  13 pause:probe STRING   the owner of the claim that tests the provider; while it exists nobody else claims
--  14 pause:ours STRING    "MS WORDS" of a pause that a failure has made: it lasts no longer than so many ms
-- announce gets as its one further key, and status may get as its last:
--     workers HASH       worker -> "UNTIL SECONDS SINCE FACTS": who works; until when that holds if nothing more is heard,
--                        and how many seconds that was made to hold; since when; JSON, as store/workers.py has it
-- outsource, lead, keep_job, give_back and pull may get:
--     jobs HASH          name of a job -> JSON, as store/jobs.py has it; ":lead" -> "WHO UNTIL SINCE", who looks after them
--     job:NAME HASH      redis_key -> digest of its text, of all that went into the job
-- All times are Unix seconds by the server's clock, unless a name or a comment says ms.
--
-- A stamp is the number of an item: microseconds of its enqueue, made strictly increasing. Stamps alone order the texts
-- of a key.
--
-- The scripts keep these invariants; docs/design.md, section 4, tells more of each:
--   I1 A redis_key has at most one live item, in one of pending, inflight and alone, and latest names it. What latest
--      names and none of them holds is a ghost (another program took it): the key has no item. What they hold and latest
--      does not name is a stray (another program left it): it is adopted before anything is claimed.
--   I2 When enqueue returns, every older item of the key that latest or dead:info knows is gone. A copy of a command that
--      comes late changes nothing.
--   I3 A vector is written only by complete, for a member that is in flight and that latest names, which is acknowledged
--      in the same step. So a vector of an older text never overwrites the vector of a newer one.
--   I4 An item leaves only when its vector is written, when it becomes a dead letter, when a newer text of its key takes
--      its place, when its key is forgotten, or, with if_missing="skip", when its hash is gone.
-- One verb for one thing: claim (out of pending, under a lease), release (back to pending, no delivery counted),
-- acknowledge (out of inflight after the write), reject (make a dead letter), adopt (give a stray its entry in latest).

local PENDING, INFLIGHT, ALONE, LATEST, CLAIMS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local DEAD, INFO, EVENTS, SETTINGS, FLUSHES = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local PAUSE, LEVEL, PROBE, OURS = KEYS[11], KEYS[12], KEYS[13], KEYS[14]
local FIRST_FURTHER_KEY = 15
local LAYOUT = "2" -- of all that stands above; scripts.py has the same number
local JOBS = 100000000000 -- scores of inflight from here on are of items in jobs: no lease lasts until the year 5138
local CHUNK = 1000 -- values that unpack() hands to one command: Lua's stack holds about 8,000
local EVENTS_LENGTH = 10000 -- notices, approximately; store/events.py has the same number
local NOTICE_BYTES = 2000 -- of redis_keys that one notice names; so the stream is bounded in bytes as well

local time = redis.call("TIME")
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = now_us / 1000000
