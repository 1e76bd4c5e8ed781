"""Check the arrays of an automaton or a prefix tree that were read from files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bagformer_cli.text.automaton import CODE_POINT_BITS, Automaton, PrefixTree


def check_tree(tree: PrefixTree) -> None:
    """Check that no walk in a prefix tree can leave its arrays.

    Raises:
        ValueError: One could.
    """
    label, first, value, _ = tree
    nodes = len(label)
    fits = (
        nodes > 0
        and len(first) == nodes + 1
        and len(value) == nodes
        and first[0] == 1
        and first[-1] == nodes
        and bool((first[1:] >= first[:-1]).all())
        and bool((first[:-1] > np.arange(nodes)).all())  # children come after their parent
    )
    if not fits:
        raise ValueError("the prefix tree is damaged")


def check_automaton(automaton: Automaton, words: int) -> None:
    """Check that reading with an automaton ends and never leaves its arrays.

    Raises:
        ValueError: It could.
    """
    edges, children, _, initials, value, depth, failure, output = automaton
    nodes, slots = len(value), len(edges)
    if not (
        nodes > len(initials)
        and slots & (slots - 1) == 0
        and len(children) == slots
        and len(depth) == len(failure) == len(output) == nodes
        and bool((edges == 0).any())  # a search for an edge that is not there ends at a free slot
        and all(_below(array, nodes) for array in (children, failure, output))
        and int(value.min()) >= -1
        and int(value.max()) < words
        and not failure[0]
        and not output[0]
    ):
        raise ValueError("the automaton is damaged")
    # Every edge leads one character further, so a node's string fits into the characters before
    # it. Links lead to shorter strings, so every chain of links ends at the root.
    used = np.flatnonzero(edges)
    parent = edges[used] >> CODE_POINT_BITS
    if not (
        _below(parent, nodes)
        and not depth[0]
        and bool((depth[1 : len(initials) + 1] == 1).all())
        and bool((depth[children[used]] == depth[parent] + np.uint8(1)).all())
        and bool((depth[failure[1:]] < depth[1:]).all())
        and bool((depth[output[1:]] < depth[1:]).all())
    ):
        raise ValueError("the links of the automaton are damaged")


def _below(array: npt.NDArray[Any], limit: int) -> bool:
    return not len(array) or (int(array.min()) >= 0 and int(array.max()) < limit)
