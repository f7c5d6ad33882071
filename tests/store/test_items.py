"""Live items as people look at them: in order, some at a time, while others come and go; and by parts of their keys."""

from __future__ import annotations

from embedqueue.store.items import Mark
from embedqueue.store.store import Store
from embedqueue.values.item import encode_member

PENDING = "embed_queue:pending"


def put(store: Store, *pairs: tuple[str, str]) -> None:
    group = [part for key, text in pairs for part in (key.encode(), encode_member(key, text))]
    store.enqueue([group], max_pending=None, tell_at=10**6, tell_first=False)


def claim(store: Store, count: int, name: str = "w1:1/50.000:") -> None:
    store.claim(name, count, probe_limit=count, lease_seconds=50, max_deliveries=5, alone=True)


def keys(page) -> list[str]:
    return [item.redis_key for item in page.items]


def test_an_item_is_told_with_what_is_known_of_it(store, client):
    """Its age, its size, its text as far as it is wanted; in flight, who holds it and until when."""
    put(store, ("doc:1", "one ä text"))
    page = store.items.page("pending", text_bytes=5)
    [item] = page.items
    assert (page.total, page.rank, item.redis_key, item.place) == (1, 0, "doc:1", "pending")
    assert (item.size_bytes, item.text) == (len(encode_member("doc:1", "one ä text")), "one "), "no half of a character"
    assert 0 <= page.now - item.enqueued_at < 10
    assert store.items.page("pending").items[0].text == ""
    claim(store, 1)
    [flying] = store.items.page("inflight").items
    assert (flying.worker, flying.deliveries) == ("w1", 0)
    assert 40 < float(flying.score) - page.now <= 60
    assert 0 <= page.now - flying.enqueued_at < 10
    assert store.items.page("pending").items == store.items.page("alone").items == []


def test_pages_miss_nothing_while_items_are_claimed(store):
    """Many of one score; between two looks some go from the front, and all that stay are seen."""
    put(store, *((f"doc:{at:02}", "x") for at in range(30)))
    seen, start = [], 0
    while (page := store.items.page("pending", start, 4)).items:
        seen += keys(page)
        start = page.items[-1].mark("after")
        claim(store, 2, f"w1:{len(seen)}/50.000:")
    claimed = {item.redis_key for item in store.items.page("inflight", limit=50).items}
    assert set(seen) | claimed == {f"doc:{at:02}" for at in range(30)}
    assert len(seen) == len(set(seen)), "and nothing is seen twice"
    assert set(keys(store.items.page("pending", limit=50))) <= set(seen)


def test_where_the_last_item_seen_has_gone_the_list_goes_on_with_the_first_that_stands(store):
    """Claimed, or written: of one score, all that stood before it are gone as well, and none behind it is left out."""
    put(store, *((f"doc:{at:02}", "x") for at in range(12)))
    mark = store.items.page("pending", 0, 4).items[-1].mark("after")
    claim(store, 6)
    assert keys(store.items.page("pending", mark, 4)) == ["doc:06", "doc:07", "doc:08", "doc:09"]


def test_back_and_forth(store, client):
    """What stood before a page is the page before it; at the front it is the first page."""
    client.zadd(PENDING, {encode_member(f"doc:{at}", "x"): at // 3 for at in range(10)})
    second = store.items.page("pending", store.items.page("pending", 0, 4).items[-1].mark("after"), 4)
    assert keys(second) == [f"doc:{at}" for at in (4, 5, 6, 7)]
    assert keys(store.items.page("pending", second.items[0].mark("before"), 4)) == ["doc:0", "doc:1", "doc:2", "doc:3"]
    assert keys(store.items.page("pending", Mark("before", "0", skip=1), 4)) == ["doc:0", "doc:1", "doc:2", "doc:3"]
    assert keys(store.items.page("pending", 8, 4)) == ["doc:8", "doc:9"]
    last = store.items.page("pending", 10**9, 4)
    assert (last.rank, keys(last)) == (8, ["doc:8", "doc:9"])


def test_marks_of_items_without_a_key_count(store, client):
    """Members that are not ours, all of one score, and keys that are too long to stand in a mark."""
    client.zadd(PENDING, {f"not ours {at}": 7 for at in range(9)})
    seen, start = [], 0
    while (page := store.items.page("pending", start, 4, text_bytes=50)).items:
        seen += [item.text for item in page.items]
        start = page.items[-1].mark("after")
        assert (start.redis_key, keys(page)) == ("", [""] * len(page.items))
    assert seen == [f"not ours {at}" for at in range(9)]
    put(store, ("k" * 5000, "x"))
    [item] = store.items.page("pending", 9, 1).items
    assert (item.redis_key, item.mark("after").redis_key) == ("k" * 5000, "")


def test_a_page_of_long_texts_is_short(store):
    """Redis is not kept busy: the page ends, and the next one goes on."""
    put(store, *((f"doc:{at}", "long " * 60_000) for at in range(6)))
    first = store.items.page("pending", text_bytes=100)
    assert 1 <= len(first.items) < 6
    assert {len(item.text) for item in first.items} == {100}
    rest = store.items.page("pending", first.items[-1].mark("after"))
    assert (keys(first) + keys(rest))[:4] == [f"doc:{at}" for at in range(4)]


def test_keys_are_found_by_a_part(store, client):
    """Among what waits, is in flight or is dead; nothing in the words is a pattern."""
    put(store, ("a*b", "x"), ("a?b", "x"), ("axb", "x"), ("a[b]", "x"), ("a\\b", "x"))

    def found(words: str, **more) -> dict[str, str]:
        return store.items.find(words, **more).keys

    assert found("a*") == {"a*b": "pending"}
    assert found("?") == {"a?b": "pending"}
    assert found("[b]") == {"a[b]": "pending"}
    assert found("\\") == {"a\\b": "pending"}
    assert len(found("a")) == 5
    claim(store, 1)
    assert set(found("a").values()) == {"pending", "inflight"}
    client.zrem(PENDING, encode_member("axb", "x"))
    assert found("axb") == {"axb": ""}
    assert found("axb", dead=True) == {}
    [held] = store.items.page("inflight").items
    store.reject("w1:1/50.000:", [("w1:1/50.000:", encode_member(held.redis_key, "x"), "no", False)])
    assert found("a", dead=True) == {held.redis_key: "dead"}
    client.zadd(PENDING, {b"not ours": 1})


def test_a_search_goes_on_where_it_has_stopped(store):
    """Step by step, until all was looked at; each step looks at a part."""
    put(store, *((f"doc:{at}", "x") for at in range(5000)))
    found, cursor, steps = set(), "0", 0
    while True:
        step = store.items.find("doc:49", cursor=cursor)
        found |= set(step.keys)
        cursor, steps = step.cursor, steps + 1
        if cursor == "0":
            break
    assert found == {f"doc:{at}" for at in range(5000) if str(at).startswith("49")}
    assert steps > 1
