"""Two workers and two producers on one key, interleaved at each script's boundary: every schedule of short programs.

Scripts are atomic, so a schedule is an order of whole scripts. Schedules that lead to the same state are followed once:
after each step all that stands in Redis is what the model says, so what comes next depends on nothing else. Schedules
that begin alike part from where they stood then, in Redis and in the model: no step is made twice.
"""

from __future__ import annotations

import itertools
import pickle
import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import settings

from embedqueue.store.store import Store
from tests.proof.model import key_of
from tests.proof.moves import Queue

KEY = "doc:0"
PRODUCERS = {"a text": ["a"], "another": ["b"], "the same": ["a"], "a blank one": [""], "two": ["c", "d"]}
WORKERS = {
    "stalls, writes late": ["claim", "lease ends", "complete"],
    "gives back": ["claim", "release"],
    "gives up": ["claim", "reject"],
    "writes twice": ["claim", "complete", "complete"],
    "writes": ["claim", "complete"],
    "stalls, renews, writes": ["claim", "lease ends", "extend", "complete"],
}
#: The gate follows the first four; the others are milder forms of them, for the long profile.
LONG = settings().max_examples > 100
PAIRS = list(itertools.combinations_with_replacement([*WORKERS][: None if LONG else 4], 2))
#: Of the gate where all of those are followed with other texts: whoever meets the worst of them.
WORST = PAIRS if LONG else [pair for pair in PAIRS if "stalls, writes late" in pair]

#: Of the parts of ``Queue`` those that no move changes.
FIXED = ("client", "store", "names", "field", "copies", "outsourcing", "twin")
SAVE = """local found = {}
for _, name in ipairs(redis.call("KEYS", "*")) do
    found[#found + 1] = name
    found[#found + 1] = math.max(0, redis.call("PTTL", name))
    found[#found + 1] = redis.call("DUMP", name)
end
return found"""
RESTORE = """redis.call("FLUSHALL")
for at = 1, #ARGV, 3 do
    redis.call("RESTORE", ARGV[at], ARGV[at + 1], ARGV[at + 2])
end"""


class Actors:
    """Two producers and two workers, each at some step of its program."""

    def __init__(self, client: redis.Redis, programs: tuple[list[str], ...]) -> None:
        self.client = client
        self.programs = programs
        self.store = Store(client, "embed_queue")

    def begin(self) -> None:
        self.client.flushall()
        self.queue = Queue(self.client, "embed_queue", "embedding", self.store)
        self.at = [0] * len(self.programs)
        self.owners = ["", "", "", ""]
        self.claimed: list[list[bytes]] = [[], [], [], []]

    def save(self) -> tuple[list[Any], bytes]:
        """Where all of them stand: what is in Redis, and what is here."""
        book = {name: value for name, value in vars(self.queue).items() if name not in FIXED}
        return self.client.eval(SAVE, 0), pickle.dumps((book, self.at, self.owners, self.claimed))

    def restore(self, saved: tuple[list[Any], bytes]) -> None:
        in_redis, here = saved
        self.client.eval(RESTORE, 0, *in_redis)
        book, self.at, self.owners, self.claimed = pickle.loads(here)
        vars(self.queue).update(book)

    def ready(self) -> list[int]:
        return [who for who, program in enumerate(self.programs) if self.at[who] < len(program)]

    def step(self, who: int) -> None:
        what = self.programs[who][self.at[who]]
        self.at[who] += 1
        if who < 2:
            self.queue.enqueue([(KEY, what)])
            return
        members = self.claimed[who]
        if what == "claim":
            self.owners[who] = self.queue.claim(f"w{who - 1}:", alone=True, checked=True)
            self.claimed[who] = [member for owner, member in self.queue.hands if owner == self.owners[who]]
        elif what == "complete":
            self.queue.complete(self.owners[who], members)
        elif what == "release":
            self.queue.release(self.owners[who], members)
        elif what == "extend":
            owner = self.queue.name(f"w{who - 1}:")
            assert self.queue.store.extend(owner, 1000, members) == self.queue.model.extend(owner, members)
        else:
            for member in members:
                if what == "reject":
                    self.queue.reject(self.owners[who], member)
                elif self.queue.model.inflight.get(member) and self.queue.model._holds(self.owners[who], member):
                    self.queue.lease_ends(member)

    def state(self) -> tuple[Any, ...]:
        """All that what comes next depends on: owners without the number of their claim, times as an order."""
        model, queue = self.queue.model, self.queue
        scores = {*model.pending.values(), *model.alone.values(), *(held.score for held in model.claims.values())}
        rank = {score: place for place, score in enumerate(sorted(scores))}
        return (
            tuple(self.at),
            tuple(map(tuple, self.claimed)),
            tuple((member, rank[model.pending[member]]) for member in model.in_order()),
            tuple(sorted(model.inflight.items())),
            tuple(sorted(model.alone)),
            tuple(sorted((key, named.member) for key, named in model.latest.items())),
            tuple(sorted((key, rank[h.score], h.deliveries, h.owner[:3]) for key, h in model.claims.items())),
            tuple(sorted(model.dead.items())),
            queue.newest.get(KEY),
            queue.written.get(KEY) == queue.order.get(queue.newest.get(KEY, b"")),
        )

    def finish(self) -> None:
        """Whatever was left: a healthy worker comes, and the newest text's vector is there, or a dead letter."""
        queue = self.queue
        for member in list(queue.model.inflight):
            queue.lease_ends(member)
        for _ in range(3):
            if not queue.model.waiting and not queue.model.inflight:
                break
            owner = queue.claim("w3:", alone=True)
            queue.complete(owner, [member for hand, member in queue.hands if hand == owner])
        queue.check()
        assert not queue.model.waiting
        assert not queue.model.inflight
        newest = queue.newest.get(KEY)
        dead = queue.model.dead.get(KEY.encode(), (b"", False))[0]
        if newest and dead != newest:
            assert self.client.hget(KEY, "embedding") == queue.model.hashes[KEY.encode()][0]
            assert queue.model.hashes[KEY.encode()][0].rstrip() == newest
        assert all(key_of(member) == KEY.encode() for member in queue.order if member)


def every_schedule(actors: Actors) -> Iterator[list[int]]:
    """The schedules that lead to states that no earlier one has led to, each made, checked, and left at its end."""
    seen = set()
    actors.begin()
    open_: list[tuple[list[int], tuple[list[Any], bytes]]] = [([], actors.save())]
    while open_:
        schedule, before = open_.pop()
        actors.restore(before)
        for who in schedule[-1:]:
            actors.step(who)
        actors.queue.check()
        state = actors.state()
        if state in seen:
            continue
        seen.add(state)
        here = actors.save()
        open_ += [([*schedule, who], here) for who in actors.ready()]
        yield schedule
        actors.finish()  # everybody may die here


@pytest.mark.parametrize(
    ("producers", "pairs"),
    [(("a text", "another"), PAIRS), (("a text", "a blank one"), WORST), (("the same", "a text"), WORST)],
    ids=["other texts", "a blank one", "the same text"],
)
def test_every_schedule_of_two_workers_and_two_producers(redis_client, producers, pairs):
    """Whoever stalls, dies, gives back or gives up, in whatever order: the newest text wins and none is lost."""
    count = 0
    for pair in pairs:
        programs = (*(PRODUCERS[name] for name in producers), *(WORKERS[name] for name in pair))
        count += sum(1 for _ in every_schedule(Actors(redis_client, programs)))
    assert count > 10 * len(pairs)


def test_every_schedule_on_fakeredis(fake_redis):
    """The same where the worst meets: a worker that writes late, one that writes, two texts."""
    programs = (["a"], ["b"], WORKERS["stalls, writes late"], WORKERS["writes"])
    assert sum(1 for _ in every_schedule(Actors(fake_redis, programs))) > 10


def test_long_schedules_at_random(redis_client):
    """Programs one after another, in orders drawn by a seed that a failure prints."""
    for seed in range(settings().max_examples // 2):
        rng = random.Random(seed)
        texts = [[text for _ in range(3) for text in rng.choice([*PRODUCERS.values()])] for _ in range(2)]
        moves = [[move for _ in range(4) for move in rng.choice([*WORKERS.values()])] for _ in range(2)]
        actors = Actors(redis_client, (*texts, *moves))
        actors.begin()
        schedule = []
        while ready := actors.ready():
            schedule.append(rng.choice(ready))
            try:
                actors.step(schedule[-1])
                actors.queue.check()
            except AssertionError as error:
                error.add_note(f"seed {seed}, schedule {schedule} of {actors.programs}")
                raise
        actors.finish()
