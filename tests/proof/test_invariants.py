"""The invariants of docs/design.md, checked after every step of histories that hypothesis makes up, on a real server.

Every script is in it, on two queues that share a server and the users' hashes. After each step all that stands in Redis
of both must be what ``model`` says, and what was promised must be true by a book that knows nothing of the model.
"""

from __future__ import annotations

import json

import fakeredis
import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from embedqueue.values.item import decode_member, encode_member
from embedqueue.values.provenance import digest
from tests.proof.model import MAX_DELIVERIES
from tests.proof.moves import Queue, asked, member_vector, terms

KEYS = [f"doc:{i}" for i in range(4)]
DIGESTS = ["d1", "d2", "d3"]
WORKERS = ["w1:", "w2:", "w3:"]
#: No UTF-8, though Redis' parser takes it for JSON. Fakeredis' does not: there it is foreign to all.
LOOKS_LIKE_OURS = b'{"redis_key":"doc:\xff","text":"x"}'
#: Members that are not ours. One has the name of a key, one is cut short.
FOREIGN = [
    b"not JSON",
    b"doc:0",
    b"\xff\x00",
    b'{"redis_key":"doc:1","text":7}',
    LOOKS_LIKE_OURS,
    b'{"redis_key":"doc:2","text":"cut',
]
#: Shrinking a history of fifty steps takes minutes, and the steps are printed as they are.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
keys = st.sampled_from(KEYS)
workers = st.sampled_from(WORKERS)
queues = st.sampled_from([0, 1])
#: Mostly of one model; a worker of another one comes along.
models = st.sampled_from(["m", "m", "m", "n"])
texts = st.sampled_from(["a", "b", "", 'q"\\\n', "é😀"])


class History(RuleBasedStateMachine):
    """Producers, workers that stall and die, an asyncio writer of old, operators, and hashes that come and go."""

    client: redis.Redis  # set by the test

    @initialize()
    def begin(self):
        self.client.flushall()
        self.queues = [Queue(self.client, "embed_queue", "embedding"), Queue(self.client, "embed_queue:other", "other")]

    # -- producers ---------------------------------------------------------------------------------------------

    @rule(queue=queues, key=keys, text=texts, within=st.sampled_from([None, None, 0.0, 50.0, 5000.0]))
    def enqueue(self, queue, key, text, within):
        self.queues[queue].enqueue([(key, text)], within=within)

    @rule(queue=queues, some=st.lists(keys, unique=True, min_size=2), text=st.sampled_from(["many", "more"]))
    def enqueue_many(self, queue, some, text):
        self.queues[queue].enqueue([(key, text) for key in some])

    @rule(
        queue=queues,
        limit=st.integers(1, 4),
        groups=st.lists(
            st.lists(st.tuples(keys, texts), unique_by=lambda p: p[0], min_size=1, max_size=3), min_size=1, max_size=3
        ),
    )
    def enqueue_bounded(self, queue, limit, groups):
        before = len(self.queues[queue].model.pending)
        self.queues[queue].enqueue(*groups, limit=limit)
        assert len(self.queues[queue].model.pending) <= max(before, limit)

    @rule(
        queue=queues,
        pairs=st.lists(st.tuples(keys, texts), min_size=1, max_size=3, unique_by=lambda p: p[0]),
        model=models,
    )
    def enqueue_if_changed(self, queue, pairs, model):
        self.queues[queue].enqueue_if_changed(*pairs, model=model)

    @rule(queue=queues, key=keys, vector=st.booleans())
    def forget(self, queue, key, vector):
        self.queues[queue].forget(key, vector=vector)

    @rule(queue=queues, key=keys)
    def erase_late(self, queue, key):
        self.queues[queue].erase_late(key)

    @rule(queue=queues, key=keys, text=st.sampled_from(["a", "old"]), age=st.sampled_from([0.0, 1e6]))
    def legacy_enqueue(self, queue, key, text, age):
        """In another JSON style, or in ours; just now, or long before all else."""
        member = json.dumps({"redis_key": key, "text": text}).encode() if age else encode_member(key, text)
        self.queues[queue].leave(member, age)

    @rule(queue=queues, member=st.sampled_from(FOREIGN))
    def foreign_member(self, queue, member):
        if member != LOOKS_LIKE_OURS or not isinstance(self.client, fakeredis.FakeRedis):
            self.queues[queue].leave(member)

    @rule(on=st.booleans())
    def change(self, on):
        """Texts of the first queue go to the second as well, from now on or no longer."""
        first, second = self.queues
        first.begin_change(second) if on else first.give_up()

    # -- workers -----------------------------------------------------------------------------------------------

    @rule(
        queue=queues,
        worker=workers,
        limit=st.integers(1, 5),
        urgent=st.lists(keys, max_size=2),
        alone=st.booleans(),
        model=models,
    )
    def claim(self, queue, worker, limit, urgent, alone, model):
        self.queues[queue].claim(worker, limit, alone=alone, urgent=urgent, model=model, checked=True)

    @rule(queue=queues, model=st.sampled_from(["m", "n"]))
    def decide(self, queue, model):
        """Another model from now on, whatever is under way."""
        self.queues[queue].decide(model)

    @rule(queue=queues, data=st.data(), times=st.integers(1, 2), skip=st.booleans(), more=st.booleans(), model=models)
    def complete(self, queue, data, times, skip, more, model):
        """A worker writes what it holds, be it still its own or not; the answer may be lost, and it tries again."""
        one = self.queues[queue]
        if one.hands:
            owner, member = data.draw(st.sampled_from(one.hands))
            members = [m for o, m in one.hands if o == owner] if more else [member]
            one.complete(owner, members, skip=skip, times=times, model=model)
            if not one.model.at_odds(model):  # else they are still held, to be released
                one.hands = [hand for hand in one.hands if hand[0] != owner or hand[1] not in members]

    @rule(queue=queues, data=st.data(), give_back=st.booleans())
    def release_or_reject(self, queue, data, give_back):
        one = self.queues[queue]
        if one.hands:
            owner, member = data.draw(st.sampled_from(one.hands))
            one.release(owner, [member]) if give_back else one.reject(owner, member)
            one.hands.remove((owner, member))

    @rule(queue=queues, worker=workers)
    def stop(self, queue, worker):
        """A worker stops: everything that it holds goes back."""
        name = self.queues[queue].name(worker)
        self.queues[queue].stop(worker)
        assert not [held for held in self.queues[queue].model.claims.values() if held.owner.startswith(name)]

    def ghosts(self) -> bool:
        twins = [one.twin for one in self.queues if one.twin is not None]
        return any(one.model.ghosts() for one in (*self.queues, *twins))

    @rule(queue=queues, data=st.data())
    def a_copy_arrives(self, queue, data):
        """The network has held a command back that was sent again, or given up, since: it changes nothing."""
        copies = self.queues[queue].copies
        if copies.sent:
            at = data.draw(st.integers(0, len(copies.sent) - 1))
            # A removal that comes again forgets a ghost, for some seconds: whether it does is a matter of time.
            if copies.sent[at][0] != "erase" or not self.ghosts():
                copies.arrive(at)

    @rule(queue=queues, count=st.integers(1, 3))
    def taken_away(self, queue, count):
        """By the asyncio design, which takes what it claims out of pending."""
        self.queues[queue].take_away(count)

    @rule(queue=queues, worker=workers)
    def extend(self, queue, worker):
        one = self.queues[queue]
        name = one.name(worker)
        members = list(dict.fromkeys(member for owner, member in one.hands if owner.startswith(name)))
        assert one.store.extend(name, 1000, members) == one.model.extend(name, members)

    @rule(queue=queues, data=st.data())
    def lease_ends(self, queue, data):
        """A worker stalls or dies; it may believe for long that it holds its items."""
        model = self.queues[queue].model
        claimed = sorted(member for member in model.inflight if not model.held_by_job(member))
        if claimed:
            self.queues[queue].lease_ends(data.draw(st.sampled_from(claimed)))

    @rule(queue=queues, worker=workers, times=st.integers(1, MAX_DELIVERIES))
    def workers_die(self, queue, worker, times):
        """One after another, with all that they hold; whoever is to blame dies of it in the end."""
        for _ in range(times):
            self.queues[queue].claim(worker, alone=True)
            for member in list(self.queues[queue].model.inflight):
                if not self.queues[queue].model.held_by_job(member):
                    self.queues[queue].lease_ends(member)

    # -- batch jobs --------------------------------------------------------------------------------------------

    @rule(queue=queues, some=st.lists(keys, unique=True, min_size=1), text=texts, most=st.integers(1, 3), model=models)
    def outsource(self, queue, some, text, most, model):
        """What may wait goes into a job."""
        self.queues[queue].enqueue([(key, text) for key in some], within=5000.0)
        self.queues[queue].outsource(most, model=model)

    @rule(queue=queues, data=st.data(), again=st.booleans(), more=st.booleans())
    def give_back(self, queue, data, again, more):
        """A job has not served what it held, or somebody cancels it; also late, when it holds it no more."""
        one = self.queues[queue]
        if one.in_jobs:
            job, member = data.draw(st.sampled_from(one.in_jobs))
            members = [m for j, m in one.in_jobs if j == job] if more else [member]
            one.give_back(job, list(dict.fromkeys(members)), again=again)

    @rule(queue=queues)
    def pull(self, queue):
        self.queues[queue].pull()

    @rule(queue=queues, data=st.data(), more=st.booleans(), model=models)
    def collect(self, queue, data, more, model):
        """A job has ended; what it brings of items that it no longer holds is not written."""
        one = self.queues[queue]
        if one.in_jobs:
            job, member = data.draw(st.sampled_from(one.in_jobs))
            members = [m for j, m in one.in_jobs if j == job] if more else [member]
            one.complete(f"job:{job}", list(dict.fromkeys(members)), model=model)

    # -- operators, the provider, and the application ----------------------------------------------------------

    @rule(queue=queues, data=st.data(), retry=st.booleans(), all_=st.booleans())
    def dead_letters(self, queue, data, retry, all_):
        one = self.queues[queue]
        names = one.store.dead.names()
        assert set(names) == set(one.model.dead)
        if names:
            names = sorted(names) if all_ else [data.draw(st.sampled_from(sorted(names))), b"nobody"]
            (one.retry_dead if retry else one.discard_dead)(names)

    @rule(queue=queues, worker=workers, data=st.data(), least=st.sampled_from([0.0, 250.0]))
    def provider_fails(self, queue, worker, data, least):
        one = self.queues[queue]
        owner = one.model.probe if one.model.probe and data.draw(st.booleans()) else f"{one.name(worker)}0:"
        members = []
        if one.hands and data.draw(st.booleans()):
            owner, member = data.draw(st.sampled_from(one.hands))
            one.hands.remove((owner, member))
            members = [member]
        left = max(self.client.pttl(one.names.pause), self.client.pttl(one.names.pause_probe)) / 1000
        times = {"first_seconds": 100, "most_seconds": 300, "least_seconds": least}
        seconds = one.store.fail(owner, [(owner, member) for member in members], reason="down", **times)
        expected = one.model.fail(owner, members, "down", 100, 300, least, max(0, left))
        assert abs(seconds - expected) < 5

    @rule(queue=queues)
    def pause_ends(self, queue):
        self.client.delete(self.queues[queue].names.pause, self.queues[queue].names.pause_probe)
        self.queues[queue].model.pause = self.queues[queue].model.probe = ""

    @rule(queue=queues)
    def status(self, queue):
        one = self.queues[queue]
        status, model = one.store.status(), one.model
        in_jobs = len(model.in_jobs())
        assert (status.waiting, status.in_flight, status.dead, status.pause_reason, status.failing) == (
            model.waiting, len(model.inflight) - in_jobs, len(model.dead), model.pause, bool(model.level)
        )  # fmt: skip
        assert status.outsourced == in_jobs
        assert (status.unfinished, status.strays) == (0, model.unknown())

    @rule(queue=queues, name=st.sampled_from(["f1", "f2"]), ends=st.booleans())
    def flush(self, queue, name, ends):
        """Somebody flushes, or asks again how many items are left, or ends."""
        one = self.queues[queue]
        if ends:
            one.store.end_flush(name)
            one.model.flushes.pop(name, None)
        else:
            assert one.store.status(name).unfinished == one.model.unfinished(name)

    @rule(queue=queues)
    def look(self, queue):
        one = self.queues[queue]
        questions = [asked(key, one.newest.get(key)) for key in KEYS]
        right = {key: self._vector_of(one, key) for key in KEYS}
        for key, found in zip(KEYS, one.store.look(questions, terms(one.field)), strict=True):
            word, value = one.model.look(key.encode(), right[key])
            if word == "gone" and (one.newest.get(key, b"") == b"" or key in one.taken):
                assert found[0] in (
                    "gone",
                    "blank",
                    "forgotten",
                    "done",
                    "unproven",
                )  # what was of before, for no stamp is asked for
            else:
                assert found[0] == word
                assert value is None or word == "gone" or found[1] == value

    def _vector_of(self, one, key):
        """What the hash holds."""
        return self.client.hget(key, one.field) if self.client.type(key) == b"hash" else None

    @rule(key=keys, what=st.sampled_from(["delete", "string"]))
    def the_application_writes(self, key, what):
        """It deletes a hash, or puts something else there."""
        self.client.delete(key)
        for one in self.queues:
            one.model.hashes.pop(key.encode(), None)
        if what == "string":
            self.client.set(key, "no hash")

    # -- the cache ---------------------------------------------------------------------------------------------

    @rule(queue=queues, worker=workers, digests=st.lists(st.sampled_from(DIGESTS), min_size=1, unique=True))
    def take_cached(self, queue, worker, digests):
        one = self.queues[queue]
        assert one.store.cache.take(digests, worker, 1000) == one.model.take_cached(digests, worker)

    @rule(
        queue=queues, worker=workers, digest=st.sampled_from(DIGESTS), what=st.sampled_from(["put", "hold", "let go"])
    )
    def fill_cache(self, queue, worker, digest, what):
        one = self.queues[queue]
        vector = member_vector(f"{queue}{digest}".encode())
        if what == "put":
            one.store.cache.put([(digest, vector)], 1000)
            one.model.cache[digest] = vector
        else:
            ends = what == "end"
            (one.store.cache.release if ends else lambda owners: one.store.cache.hold(owners, 1000))({digest: worker})
            one.model.hold_cached(digest, worker, ends=ends)

    # -- what must hold after every step -----------------------------------------------------------------------

    @invariant()
    def all_is_as_the_model_says(self):
        """Of both queues, whichever of them has just moved."""
        if not hasattr(self, "queues"):
            return
        for one in self.queues:
            one.check()

    @invariant()
    def nothing_else_was_written(self):
        """The cache and the hashes hold what was put there, and there is no other key."""
        if not hasattr(self, "queues"):
            return
        known, expected = set(KEYS), []
        pipeline = self.client.pipeline(transaction=False)
        for one in self.queues:
            known |= {one.names.jobs, *(f"{one.names.job_prefix}j{number + 1}" for number in range(one.jobs))}
            known |= {*one.names.all, *(one.names.cache_prefix + name for name in one.model.cache)}
            for name, value in one.model.cache.items():
                pipeline.get(one.names.cache_prefix + name)
                expected.append(value)
            for key, (vector, named, model) in one.model.hashes.items():
                pipeline.hmget(key, one.field, f"{one.field}_of")
                of = digest(decode_member(named.member).text)
                expected.append([vector, f"{model}/16/- {of} {named.stamp}".encode()])
        *found, names = pipeline.keys("*").execute()
        assert found == expected
        assert {key.decode() for key in names} <= known


def histories(factor: float, steps: int) -> settings:
    examples = max(1, int(factor * settings().max_examples))
    return settings(max_examples=examples, stateful_step_count=steps, deadline=None, phases=PHASES)


@pytest.mark.timeout(600)
def test_the_invariants_hold_in_every_history(redis_client):
    """No order of enqueues, claims, writes, deaths and pauses loses an item or lets an old text win."""
    machine = type("HistoryOnRedis", (History,), {"client": redis_client})
    run_state_machine_as_test(machine, settings=histories(1, 50))


@pytest.mark.timeout(600)
def test_the_invariants_hold_on_fakeredis(fake_redis):
    """The same on fakeredis, so that the unit tests of users prove something."""
    machine = type("HistoryOnFake", (History,), {"client": fake_redis})
    run_state_machine_as_test(machine, settings=histories(0.15, 30))
