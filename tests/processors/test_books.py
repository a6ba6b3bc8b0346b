"""The books: what is left, what is missing, and that nothing counts twice, against sets of events."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import AdvtagError
from processors.books import chunks_left, gaps, joined, missing, pages
from processors.fileset import File

A_FILE = File("d", "a.root", "Events", 100, b"0" * 16, True)


def counted(*ranges, **more):
    return {"events": sum(b - a for a, b in ranges), "jets": 1, "sum_weights": 2.0, "ranges": [*ranges], **more}


def cut(events, edges):
    """Ranges between edges, every second one of them."""
    edges = sorted({0, events, *(edge for edge in edges if edge < events)})
    return list(pairwise(edges))[::2]


@given(st.integers(0, 60), st.lists(st.integers(1, 59), max_size=8), st.randoms())
@settings(max_examples=200, deadline=None)
def test_gaps_and_ranges_make_up_the_file(events, edges, random):
    ranges = cut(events, edges) if events else []
    inside = {event for start, stop in ranges for event in range(start, stop)}
    random.shuffle(ranges)
    left = [event for start, stop in gaps(events, ranges) for event in range(start, stop)]
    assert sorted([*left, *inside]) == list(range(events))
    together = joined(ranges)
    assert {event for start, stop in together for event in range(start, stop)} == inside
    assert all(stop < start for (_, stop), (start, _) in pairwise(together))


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=2, max_size=5))
@settings(max_examples=200, deadline=None)
def test_overlaps_are_refused(starts):
    ranges = [(start, start + length) for start, length in starts]
    events = [event for start, stop in ranges for event in range(start, stop)]
    if len(set(events)) == len(events):
        joined(ranges)
        return
    with pytest.raises(AdvtagError, match="processed twice"):
        joined(ranges)


@pytest.mark.parametrize("chunksize", [1, 7, 30, 1000])
def test_chunks_left_are_what_is_missing(chunksize):
    counts = {"d": {"a.root": counted([10, 20], [20, 33], [90, 100])}}
    chunks = chunks_left(A_FILE, counts, chunksize)
    events = [event for chunk in chunks for event in range(chunk.entrystart, chunk.entrystop)]
    assert events == [*range(10), *range(33, 90)]
    assert max(len(chunk) for chunk in chunks) <= max(1, 1.5 * chunksize)
    assert {(chunk.dataset, chunk.filename, chunk.treename, chunk.fileuuid) for chunk in chunks} == {
        ("d", "a.root", "Events", b"0" * 16)
    }
    assert chunks_left(A_FILE, {"d": {"a.root": counted([0, 100])}}, chunksize) == []


def test_an_empty_file_is_a_chunk_once():
    empty = File("d", "e.root", "Events", 0, b"1" * 16, True)
    (chunk,) = chunks_left(empty, {}, 10)
    assert len(chunk) == 0
    assert chunks_left(empty, {"d": {"e.root": counted()}}, 10) == []
    assert missing([empty], {}) == []


def test_what_is_missing_is_named():
    counts = {"d": {"a.root": counted([0, 40], [60, 100])}}
    assert missing([A_FILE], counts) == [{"dataset": "d", "file": "a.root", "start": 40, "stop": 60}]
    assert missing([A_FILE], {}) == [{"dataset": "d", "file": "a.root", "start": 0, "stop": 100}]
    page = pages("d", [A_FILE, File("other", "b.root", "Events", 5, b"2" * 16, True)], counts)
    assert (page["expected_events"], page["events"]) == (100, 80)
    assert page["files"]["a.root"]["ranges"] == [(0, 40), (60, 100)]


@pytest.mark.parametrize(
    ("counts", "words"),
    [(counted([0, 60], [50, 100]), "events 50 to 60 were processed twice"), (counted([0, 50], events=49), "49 events")],
)
def test_books_that_do_not_balance(counts, words):
    with pytest.raises(AdvtagError, match=words) as error:
        missing([A_FILE], {"d": {"a.root": counts}})
    assert "a.root" in str(error.value)
