-- Tell how the queue stands, in one round trip.
--
-- ARGV[1] name of a flush, or ""; a flush that is not known begins now: it waits for all that is live
-- ARGV[2] "1": it begins although the books are not in order, for another program never rests
-- ARGV[3] JSON: the limits, as buckets.open() takes them, in the hash KEYS[15]; "" where there are none
-- ARGV[4] "1": the last of KEYS is that of the workers, who are counted
-- ARGV[5] "1": the last of the others is that of the budget, which is told
-- ARGV[6] what waits for batch jobs, as job_bound() takes it; "" where nothing does
-- Answer: {now, waiting, in flight, dead, score of the first or "", when it was enqueued or "", the base of scores or "",
--   next lease end or "", pause in ms or -2, its reason,
--   "1" while the provider has not yet answered again, how many items the flush still waits for (0 without one), the owner
--   of the claim that tests the provider or "", how many more members stand somewhere than latest names, how many workers
--   work or -1 where that is not known, {name of a limit, limit, what is left of it, seconds until the next call may go, ...},
--   {field of the budget, value, ...},
--   how many wait for jobs, who are not counted among the waiting, how many are in jobs, nor among those in flight, the bound
--   of what waits for jobs or ""}
-- Else a flush does not begin while the books are not in order, for it would not wait for what nobody has adopted.

local FLUSH_SECONDS = 30 -- a flush that nobody asks about any more ends

-- An idle worker asks this a few times a minute, so what cannot be there is not asked for.
local in_flight, pause_ms, unknown = redis.call("ZCARD", INFLIGHT), pause_left(), strays()
local base, off, stamp = job_settings()
local bound = job_bound(ARGV[6], base, off, stamp)
local waiting, score, since, meant = waiting_items(bound)
local outsourced = in_flight > 0 and redis.pcall("ZCOUNT", INFLIGHT, JOBS, "+inf") or 0
outsourced = type(outsourced) == "number" and outsourced or 0 -- an ACL of before forbids it
in_flight = in_flight - outsourced
local unfinished = 0
if ARGV[1] ~= "" and (unknown == 0 or ARGV[2] == "1") then
  local live, own = redis.call("HLEN", LATEST), bound_of(ARGV[1])
  if own < JOBS then
    live = live - outsourced - redis.call("ZCOUNT", PENDING, "(" .. seconds_text(own), "+inf")
  end
  local stamp, left = string.match(redis.call("HGET", FLUSHES, ARGV[1]) or "", "^(%d+) (%d+) ")
  unfinished = math.min(live, tonumber(left or live))
  stamp = stamp or stamp_text(next_stamp()) -- above all that is live, below all that comes
  keep_stamp()
  redis.call("HSET", FLUSHES, ARGV[1], stamp .. " " .. unfinished .. " " .. seconds_text(now + FLUSH_SECONDS))
end
local first = in_flight > 0 and redis.call("ZRANGE", INFLIGHT, 0, 0, "WITHSCORES") or {}
local lease_end = first[2] or ""
if first[2] and outlasts(first[1], tonumber(first[2])) then
  lease_end = seconds_text(now) -- the clock was set back: the next claim puts it right
end
local all, workers = ARGV[4] == "1" and redis.pcall("HGETALL", KEYS[#KEYS]) or { err = "" }, 0
for i = 2, #all, 2 do
  workers = workers + (works(all[i]) and 1 or 0)
end
local spent = ARGV[5] == "1" and redis.pcall("HGETALL", KEYS[#KEYS - tonumber(ARGV[4])]) or {}
local reason = pause_ms ~= -2 and redis.call("GET", PAUSE) or ""
local probe = pause_ms ~= -2 and redis.call("GET", PROBE) or ""
if buckets then
  buckets.open(ARGV[3])
end
return {
  seconds_text(now), waiting, in_flight, redis.call("ZCARD", DEAD), score, since,
  base or "", lease_end, pause_ms, reason,
  tostring(redis.call("EXISTS", LEVEL)), unfinished, probe, unknown, all.err and -1 or workers,
  buckets and buckets.left() or {}, spent.err and {} or spent, meant, outsourced, bound and seconds_text(bound) or "",
}
