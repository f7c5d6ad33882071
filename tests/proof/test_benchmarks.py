"""The figures that the benchmark suite prints: pure functions, no timing."""

import struct

import pytest

from benchmarks import corpus
from benchmarks.figures import (
    Answer,
    Row,
    Target,
    percentile,
    ratio_target,
    ratios,
    row_table,
    settled,
    shown,
    spread,
    target,
    target_table,
)


def row(contender, values, **at):
    return Row(contender, at, "items/s", values)


def test_the_spread_is_the_middle_half_and_of_few_values_all():
    assert spread([5.0, 1.0, 3.0, 2.0, 4.0]) == (2.0, 4.0)
    assert spread([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert spread([7.0]) == (7.0, 7.0)


def test_ratios_pair_what_was_measured_together():
    # a slow second repetition slows both: the ratio of the pair stays
    assert ratios([100.0, 10.0], [50.0, 5.0]) == [2.0, 2.0]
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


def test_a_ratio_target_is_the_median_of_paired_ratios():
    [found] = ratio_target("x", row("a", [10.0, 30.0, 90.0]), row("b", [10.0, 10.0, 10.0]), 2.0)
    assert (found.measured, found.low, found.high) == (3.0, 1.0, 9.0)
    assert found.reached


def test_there_is_no_target_without_both_rows():
    assert ratio_target("x", None, row("b", [1.0]), 1.0) == []
    assert ratio_target("x", row("a", [1.0]), None, 1.0) == []


@pytest.mark.parametrize(
    ("measured", "sense", "reached"),
    [(1.0, "at least", True), (0.99, "at least", False), (1.0, "at most", True), (1.01, "at most", False)],
)
def test_a_bound_itself_counts_as_reached(measured, sense, reached):
    assert Target("x", measured, measured, measured, 1.0, sense).reached is reached


def test_percentiles_are_measured_values():
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, p) for p in (50, 95, 99, 100)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([4.0], 99) == 4.0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (0.1, "0.100"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.4, "123"),
        (1234.0, "1,230"),
        (231_987.0, "232,000"),
        (-2.5, "-2.50"),
        (float("nan"), "-"),
    ],
)
def test_figures_have_three_digits_that_count(value, text):
    assert shown(value) == text


def test_a_row_is_found_by_its_whole_situation():
    answer = Answer("q", "Q", [row("a", [1.0], threads=1), row("a", [2.0], threads=8)])
    assert answer.find("a", threads=8).median == 2.0
    assert answer.find("a") is None
    assert answer.find("b", threads=8) is None


def test_targets_that_are_missed_stand_out():
    table = target_table([target("fast", [3.0], 2.0), target("slow", [1.0, 1.0, 1.0], 2.0)]).splitlines()
    assert table[2] == "| fast | at least 2.00 | 3.00 | 3.00 to 3.00 | reached |"
    assert table[3] == "| slow | at least 2.00 | 1.00 | 1.00 to 1.00 | **not reached** |"


def test_rows_show_situation_median_spread_and_further_figures():
    rows = [Row("a", {"depth": 100_000}, "items/s", [1.0, 2.0, 9.0], {"cpu": 0.5}), row("b", [4.0], depth=10)]
    table = row_table(rows, str.upper, {"depth": "items that wait"}).splitlines()
    assert table[0] == "|  | items that wait | items/s | spread | cpu |"
    assert table[2] == "| A | 100,000 | 2.00 | 1.00 to 9.00 | 0.500 |"
    assert table[3] == "| B | 10 | 4.00 | 4.00 to 4.00 |  |"


def test_the_json_of_a_row_says_all():
    found = row("a", [1.0, 2.0, 3.0], threads=1).as_json()
    assert (found["median"], found["low"], found["high"], found["values"]) == (2.0, 1.0, 3.0, [1.0, 2.0, 3.0])


def test_vectors_tell_texts_apart_and_have_their_length():
    one, other = (corpus.vector(text, 768) for text in (b"one", b"other"))
    assert len(one) == len(other) == 4 * 768
    assert one[:12] != other[:12]
    assert struct.unpack("<3f", one[:12]) == corpus.head(b"one")  # exact in float32


def test_texts_are_unique_and_as_long_as_asked_for():
    pairs = corpus.pairs("doc:", 100, chars=200)
    assert len({text for _, text in pairs}) == len({key for key, _ in pairs}) == 100
    assert {len(text) for _, text in pairs} == {200}


def test_what_settles_is_the_mean_over_the_second_half_of_the_time():
    # 0 to 4 s: ten in flight; 4 to 6 s: two; 6 to 8 s: four
    assert settled([(0.0, 10), (4.0, 2), (6.0, 4), (8.0, 0)]) == 3.0
    # the first change lies before the middle, and still counts beyond it
    assert settled([(0.0, 6), (8.0, 0)]) == 6.0
