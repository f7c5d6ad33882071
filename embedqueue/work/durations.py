"""What a queue and its worker both count by. The worker itself is imported with the engine."""

from __future__ import annotations

NEVER = float("inf")
#: Seconds after Redis was away in which leases that ran out are left alone: whoever lives renews them, as all try again
#: every two seconds at the latest. So deliveries count processes that died, and no outage.
OUTAGE_GRACE_SECONDS = 5.0
#: Seconds after which a process that may not claim asks whether it may now.
BARRED_SECONDS = 30.0
#: Times in a row that the books are put in order before something is claimed all the same: another program may never
#: rest. What it has left and nobody has adopted is older than the vector in its hash, then, and dropped by its stamp.
ADOPTIONS = 3
