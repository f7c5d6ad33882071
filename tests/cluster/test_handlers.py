"""A signal's handler comes while the main thread asks a cluster for its slots, or waits for one of them."""

from __future__ import annotations

import pytest

from embedqueue.store.cluster.nodes import Nodes
from tests.inside import inside
from tests.parts import interrupt_wait


def test_a_handler_uses_the_queue_while_slots_are_looked_up(make_queue, client, monkeypatch):
    """It does not wait for what its own thread holds."""
    queue = make_queue(client, worker=False, start=False)
    slots_by, seen = Nodes._slots_by, []

    def interrupted(nodes, address):
        if not seen:
            seen.append(None)
            queue.enqueue("doc:handled", "by a handler")
            seen[0] = queue.stats().waiting
        return slots_by(nodes, address)

    monkeypatch.setattr(Nodes, "_slots_by", interrupted)
    inside(queue).store._nodes.doubt()
    queue.enqueue("doc:1", "one")
    assert seen == [1]
    assert queue.pending_count() == 2


def test_ctrl_c_ends_a_wait_for_a_slots_master(client):
    """And the nodes are good for more."""

    def connect(address):
        raise ConnectionRefusedError

    nodes = Nodes(client, 30.0)
    interrupt_wait(nodes.closed._cond)
    with pytest.raises(KeyboardInterrupt, match="of a handler"):
        nodes.reach(7, connect)
    assert nodes.reach(7, lambda address: address) in nodes.masters()
    nodes.close()
