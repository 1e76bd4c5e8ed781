"""The kernel of BERT's tokenizer: code points to the ids of the longest pieces and their places."""

from __future__ import annotations

from bagformer_cli.text.automaton import Array, child
from bagformer_cli.text.characters import DROP, ISOLATED, UNSURE, WHITE

MAX_WORD = 100


def wordpiece(
    codes: Array, offsets: Array, action: Array, becomes: Array,
    first: Array, label: Array, value: Array, roots: Array, inner: int, unknown: int,
    ids: Array, starts: Array, ends: Array, token_offsets: Array, unsure: Array,
) -> int:  # fmt: skip
    """BERT's tokenizer over many texts; texts it leaves to the oracle are flagged in ``unsure``.

    ``inner`` is the node of ``##``. Greedy longest match first; a word that cannot be built from
    pieces, or is longer than 100 characters, is one [UNK].
    """
    letters = [0] * (MAX_WORD + 1)
    places = [0] * (MAX_WORD + 1)
    total = 0
    for text in range(len(offsets) - 1):
        begin = offsets[text]
        stop = offsets[text + 1]
        token_offsets[text] = total
        before = total
        length = 0
        word_start = 0
        word_end = 0
        at = begin
        while at <= stop:
            what = WHITE
            if at < stop:
                what = action[codes[at]]
                if what == DROP:
                    at += 1
                    continue
                if what == UNSURE or (codes[at] == 91 and at + 1 < stop and codes[at + 1] < 128):
                    unsure[text] = True  # 91 is "[": "[MASK]" in a title is the special token
                    total = before
                    length = 0
                    break
                if what > ISOLATED:
                    if length == 0:
                        word_start = at
                    if length < MAX_WORD:
                        letters[length] = becomes[codes[at]]
                        places[length] = at
                    word_end = at + 1
                    length += 1
                    at += 1
                    continue
            if length > 0:
                piece = 0
                good = length <= MAX_WORD
                mark = total
                while good and piece < length:
                    node = 0 if piece == 0 else inner
                    found = -1
                    found_end = piece
                    walk = piece
                    while walk < length:
                        node = child(node, letters[walk], first, label, roots)
                        if node == 0:
                            break
                        walk += 1
                        if value[node] >= 0:
                            found = value[node]
                            found_end = walk
                    if found < 0 or (piece > 0 and inner == 0):
                        good = False
                    else:
                        ids[total] = found
                        starts[total] = places[piece] - begin
                        ends[total] = places[found_end - 1] + 1 - begin
                        total += 1
                        piece = found_end
                if not good:
                    total = mark
                    ids[total] = unknown
                    starts[total] = word_start - begin
                    ends[total] = word_end - begin
                    total += 1
                length = 0
            if what == ISOLATED:
                node = roots[becomes[codes[at]]]
                ids[total] = value[node] if node > 0 and value[node] >= 0 else unknown
                starts[total] = at - begin
                ends[total] = at + 1 - begin
                total += 1
            at += 1
    token_offsets[len(offsets) - 1] = total
    return total
