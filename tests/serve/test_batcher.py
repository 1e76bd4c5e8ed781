"""Requests that wait are searched together; each gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.serve.batcher import Batcher, TooBusyError

ONE, OTHER = SearchOptions(k=1), SearchOptions(k=2)


class Held:
    """A search that waits until it is let go, and remembers its batches."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[Any]] = []

    def __call__(self, queries: Sequence[Any], options: SearchOptions) -> list[Any]:
        self.batches.append(list(queries))
        self.begun.set()
        assert self.go.wait(20)
        if "wrong" in queries:
            raise ValueError("wrong")
        return [f"{query}/{options.k}" for query in queries]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def batcher(held: Held) -> Iterator[Batcher]:
    made = Batcher(held, batch=3, waiting=6)
    yield made
    held.go.set()
    made.close()


def test_what_waits_is_searched_together_by_kind(held: Held, batcher: Batcher) -> None:
    first = batcher.submit("a", ONE, "title")
    assert held.begun.wait(20)
    later = [batcher.submit(query, ONE, "title") for query in "bc"]
    other = batcher.submit("d", OTHER, "title")
    image = batcher.submit("e", ONE, "image")
    full = [batcher.submit(query, ONE, "title") for query in "fg"]
    held.go.set()
    answers = [one.result(20) for one in (first, *later, other, image, *full)]
    assert answers == [
        "a/1", "b/1", "c/1", "d/2", "e/1", "f/1", "g/1"
    ]  # fmt: skip
    assert held.batches == [["a"], ["b", "c", "f"], ["d"], ["e"], ["g"]]


def test_a_wrong_query_fails_alone(held: Held, batcher: Batcher) -> None:
    first = batcher.submit("a", ONE, "title")
    assert held.begun.wait(20)
    good = batcher.submit("b", ONE, "title")
    wrong = batcher.submit("wrong", ONE, "title")
    held.go.set()
    assert (first.result(20), good.result(20)) == ("a/1", "b/1")
    with pytest.raises(ValueError, match="wrong"):
        wrong.result(20)


def test_more_than_may_wait_are_refused(held: Held, batcher: Batcher) -> None:
    batcher.submit("a", ONE, "title")
    assert held.begun.wait(20)
    for _ in range(6):
        batcher.submit("b", ONE, "title")
    assert batcher.depth == 6
    with pytest.raises(TooBusyError):
        batcher.submit("c", ONE, "title")


def test_a_request_that_was_given_up_is_not_searched(held: Held, batcher: Batcher) -> None:
    batcher.submit("a", ONE, "title")
    assert held.begun.wait(20)
    gone = batcher.submit("gone", ONE, "title")
    assert gone.cancel()
    kept = batcher.submit("b", ONE, "title")
    held.go.set()
    assert kept.result(20) == "b/1"
    assert held.batches == [["a"], ["b"]]


def test_closing_answers_what_waits(held: Held) -> None:
    batcher = Batcher(held, batch=3, waiting=6)
    waiting = [batcher.submit(query, ONE, "title") for query in "ab"]
    held.go.set()
    batcher.close()
    assert [one.result(0) for one in waiting] == ["a/1", "b/1"]
    with pytest.raises(TooBusyError):
        batcher.submit("c", ONE, "title")
