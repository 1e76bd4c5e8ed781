"""The Aho-Corasick automaton, against pyahocorasick."""

from __future__ import annotations

from typing import Any

import ahocorasick
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.text.automaton import Automaton, PrefixTree

ENTRIES_AND_TEXT = (
    st.sets(st.text("红绿裙子a1 ", min_size=1, max_size=5), min_size=1),
    st.text("红绿裙子a1 ", max_size=40),
)


def pyahocorasick(entries: list[str]) -> Any:
    automaton = ahocorasick.Automaton()
    for index, entry in enumerate(entries):
        automaton.add_word(entry, index)
    automaton.make_automaton()
    return automaton


@given(*ENTRIES_AND_TEXT)
@settings(max_examples=150, deadline=None)
def test_the_automaton_finds_what_pyahocorasick_finds_in_the_same_order(
    entries: set[str], text: str
) -> None:
    listed = sorted(entries, reverse=True)
    automaton = Automaton.build(listed)
    expected = [(end + 1, index) for end, index in pyahocorasick(listed).iter(text)]
    found = list(automaton.matches(text))
    assert [(end, index) for _, end, index in found] == expected
    assert all(text[start:end] == listed[index] for start, end, index in found)


@given(st.sets(st.text("abc", min_size=1, max_size=6), min_size=1))
@settings(max_examples=100, deadline=None)
def test_the_failure_links_are_those_of_pyahocorasick(entries: set[str]) -> None:
    listed = sorted(entries)
    nodes, edges, links = pyahocorasick(listed).dump()
    strings = {nodes[0][0]: ""}  # its nodes come parents first, the root before all
    for parent, label, node in edges:
        strings[node] = strings[parent] + label.decode()
    automaton, tree = Automaton.build(listed), PrefixTree.build(listed)
    for node, target in links:
        ours = tree.find(strings[node])
        assert automaton.failure[ours] == tree.find(strings[target])
        assert automaton.depth[ours] == len(strings[node])


def test_an_automaton_takes_words_of_up_to_255_characters() -> None:
    assert list(Automaton.build(["a" * 255]).matches("a" * 256)) == [(0, 255, 0), (1, 256, 0)]
    with pytest.raises(ValueError, match="255"):
        Automaton.build(["a" * 256])
