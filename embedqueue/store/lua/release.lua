-- Release claimed items: they wait again under their old score, and no delivery is counted.
--
-- ARGV: two for each item: owner of its claim; member
-- Answer: how many items were released. What that very claim no longer holds stays where it is: so a copy of this command
-- that comes late takes nothing from a later claim.
-- Keeps I4. A probe is not over by this, for items of other calls may be released while the call that probes is under way.

local released = 0
for i = 1, #ARGV, 2 do
  released = released + release(ARGV[i + 1], ARGV[i])
end
if released > 0 then
  notice("flush", ARGV[1], "") -- they were due when they were claimed
end
return released
