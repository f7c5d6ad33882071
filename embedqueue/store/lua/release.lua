-- Release claimed items: they wait again under their old score, and no delivery is counted.
--
-- ARGV[1] what is given back to the buckets in the hash KEYS[15], because it will not be sent: a cost, or ""
-- ARGV[2..] two for each item: owner of its claim; member
-- Answer: how many items were released. What that very claim no longer holds stays where it is: so a copy of this command
-- that comes late takes nothing from a later claim, and gives nothing back again.
-- Keeps I4. A probe is not over by this, for items of other calls may be released while the call that probes is under way.

local released = 0
for i = 2, #ARGV, 2 do
  released = released + release(ARGV[i + 1], ARGV[i])
end
if released > 0 then
  notice("flush", ARGV[2], "") -- they were due when they were claimed
  if buckets then
    buckets.give_back(ARGV[1])
  end
end
return released
