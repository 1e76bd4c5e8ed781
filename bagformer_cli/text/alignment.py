"""The kernels that join character bags and tokens: for a model, and for a reader."""

from __future__ import annotations

from bagformer_cli.text.automaton import Array


def assemble(
    ids: Array, starts: Array, token_offsets: Array, bag_ends: Array, bag_offsets: Array,
    room: int, cls_id: int, sep_id: int, add_sep: bool,
    out_ids: Array, out_token_offsets: Array, out_starts: Array, out_ends: Array,
    out_bag_offsets: Array,
) -> tuple[int, int]:  # fmt: skip
    """Tokens and character bags of each text become packed token-aligned bags.

    A token belongs to the bag that holds its first character, so a bag never ends inside one.
    ``room`` is how many tokens are kept of a text, without [CLS] and [SEP].
    """
    tokens = 0
    bags = 0
    for text in range(len(token_offsets) - 1):
        out_token_offsets[text] = tokens
        out_bag_offsets[text] = bags
        out_ids[tokens] = cls_id
        tokens += 1
        begin = token_offsets[text]
        stop = min(token_offsets[text + 1], begin + room)
        bag = bag_offsets[text]
        last = bag_offsets[text + 1] - 1
        current = bag - 1
        for token in range(begin, stop):
            while bag < last and bag_ends[bag] <= starts[token]:
                bag += 1
            if bag != current:
                out_starts[bags] = tokens
                bags += 1
                current = bag
            out_ids[tokens] = ids[token]
            tokens += 1
            out_ends[bags - 1] = tokens
        if begin >= stop:  # nothing a model could see: [CLS] stands for the title
            out_starts[bags] = tokens - 1
            out_ends[bags] = tokens
            bags += 1
        if add_sep:
            out_ids[tokens] = sep_id
            tokens += 1
    out_token_offsets[len(token_offsets) - 1] = tokens
    out_bag_offsets[len(token_offsets) - 1] = bags
    return tokens, bags


def align(
    starts: Array, ends: Array, token_offsets: Array,
    bag_starts: Array, bag_ends: Array, bag_offsets: Array,
    out_starts: Array, out_ends: Array, out_bags: Array, out_offsets: Array,
) -> int:  # fmt: skip
    """Character bags whose edges are edges of tokens.

    A bag grows where it would end inside a token; what leaves no token goes to the bag before it
    (or, at the beginning of a title, behind it). ``out_bags`` says which bag each came from.
    """
    total = 0
    for text in range(len(token_offsets) - 1):
        out_offsets[text] = total
        before = total
        token = token_offsets[text]
        last_token = token_offsets[text + 1]
        some = token < last_token
        for bag in range(bag_offsets[text], bag_offsets[text + 1]):
            end = bag_ends[bag]
            last = bag == bag_offsets[text + 1] - 1
            begin = token
            while token < last_token and (starts[token] < end or last):
                token += 1
            if token > begin:
                end = max(end, ends[token - 1])
            elif some:
                if total > before:
                    out_ends[total - 1] = max(out_ends[total - 1], end)
                continue
            if total > before:
                out_starts[total] = max(bag_starts[bag], out_ends[total - 1])
            else:
                out_starts[total] = bag_starts[bag_offsets[text]]
            out_ends[total] = end
            out_bags[total] = bag
            total += 1
    out_offsets[len(token_offsets) - 1] = total
    return total
