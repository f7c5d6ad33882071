"""What the scripts answer, read: claims, and how the queue stands. The heads of the scripts list what is where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .budget import state_of
from .limits import left_of, paid_of
from .records import Claim, Status


def claim_of(reply: Sequence[Any], owner: str, asked_mono: float) -> tuple[Claim, float]:
    """What a claim brought, from the answer of claim.lua, and the time of the answer by the server's clock.

    Args:
        reply: the answer.
        owner: the name of the claim.
        asked_mono: when Redis was asked, by our monotonic clock.
    """
    status, now_text, waiting, score, since, base, lease_end, pause_ms, alone, oldest = reply[:10]
    ran_out, rejected, strays, differs, unknown, wait, cost, meant, promoted = reply[10:19]
    now = float(now_text)
    claim = Claim(
        status=status.decode(),
        owner=owner,
        members=list(reply[19:]),
        waiting=waiting,
        oldest_age_seconds=_seconds_since(since, now),
        score_age_seconds=_seconds_since(score, now),
        base_seconds=float(base) if base else None,
        lease_end_seconds=_seconds_until(lease_end, now),
        pause_seconds=pause_seconds(pause_ms),
        alone=alone.decode(),
        waited_seconds=_seconds_since(oldest, now) or 0.0,
        ran_out=ran_out,
        rejected=[(member, reason.decode(), int(count)) for member, reason, count in _by(3, rejected)],
        strays=strays,
        unknown=unknown,
        differs=[(name.decode(), kept.decode()) for name, kept in _by(2, differs)],
        asked_mono=asked_mono,
        limited_seconds=float(wait.split()[0]) if wait else None,
        limited_urgent=bool(wait) and not wait.endswith(b" 0"),
        paid=paid_of(cost),
        meant=meant,
        promoted=promoted,
    )
    return claim, now


def status_of(reply: Sequence[Any], *, budget: bool = False) -> Status:
    """How the queue stands, from the answer of status.lua; ``budget``: with what is spent, which it was asked for."""
    now = float(reply[0])
    spent: dict[bytes, bytes] = dict(zip(reply[16][::2], reply[16][1::2], strict=True)) if budget else {}
    return Status(
        now=now,
        waiting=reply[1],
        in_flight=reply[2],
        dead=reply[3],
        score_age_seconds=_seconds_since(reply[4], now),
        oldest_age_seconds=_seconds_since(reply[5], now),
        base_seconds=float(reply[6]) if reply[6] else None,
        lease_end_seconds=_seconds_until(reply[7], now),
        pause_seconds=pause_seconds(reply[8]),
        pause_reason=reply[9].decode("utf-8", "replace"),
        failing=reply[10] == b"1",
        unfinished=reply[11],
        probe=reply[12].decode("utf-8", "replace"),
        strays=reply[13],
        workers=reply[14] if reply[14] >= 0 else None,
        limits=left_of(reply[15]),
        budget=state_of(int(now), spent, reply[9]) if budget else None,
        meant=reply[17],
        outsourced=reply[18],
        bound=float(reply[19]) if reply[19] else None,
    )


def pause_seconds(ms: int) -> float | None:
    """How long a pause still lasts, in seconds, from its milliseconds as PTTL tells them; None where there is none."""
    if ms == -2:
        return None
    return ms / 1000 if ms >= 0 else math.inf  # somebody has made it by hand, without an end


def _by(count: int, values: Sequence[Any]) -> list[Sequence[Any]]:
    return [values[at : at + count] for at in range(0, len(values), count)]


def _seconds_since(then: bytes, now: float) -> float | None:
    return now - float(then) if then else None


def _seconds_until(then: bytes, now: float) -> float | None:
    return float(then) - now if then else None
