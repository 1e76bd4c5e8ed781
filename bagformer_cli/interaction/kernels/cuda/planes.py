"""Titles of different lengths as dense tiles: the layout that the CUDA kernels multiply.

A maximum over the bags of a title is a maximum over a *ragged* range, which a tile of registers
cannot take cheaply. So the bags are laid out in *planes*. Titles are sorted by length and cut into
groups of T. Plane j of a group holds the j-th bag of each of its titles, and the maximum over a
title's bags becomes an elementwise maximum of the planes' dot products, without any exchange
between threads::

    T = 4 titles, a: 3 bags, b: 3, c: 2, d: 1           row of the tile = slot of the title
                                                        column          = patch of the image
    slot      0    1    2    3
    plane 0   a0   b0   c0   d0     ── dot products ──▶  [4, patches]  ─┐
    plane 1   a1   b1   c1   d0·    ── dot products ──▶  [4, patches]  ─┼▶ maximum: i2t
    plane 2   a2   b2   c1·  d0·    ── dot products ──▶  [4, patches]  ─┘
                                           └▶ row maximum of each: t2i

    · a shorter title repeats its last bag: that changes no maximum. Sums count real bags only.

Sorting keeps the repetitions few: 5 % for 1,024 titles of 2–25 bags and T = 64.

Shapes: Q titles of G bags in total, T slots a group, R = planes × T rows, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bagformer_cli.transfer import to_device

# Seconds per row relative to T = 64, whose rows fill the tensor cores of a Hopper GPU (wgmma takes
# 64 rows; fewer rows use the instructions of older GPUs). Estimated, not measured.
COST = {16: 1.6, 64: 1.0}


@dataclass(frozen=True)
class Planes:
    """The planes of packed titles, and the place of each bag in them.

    Attributes:
        slots: T, titles of a group.
        count: Q, number of titles.
        longest: Bags of the longest title.
        values: [R, D] vectors of the bags, with repetitions.
        starts: [groups + 1] int32, first plane of each group.
        counts: [groups × T] int32, bags of the title in each slot; 0 for a slot without a title.
        titles: [groups × T] int64, title in each slot; a slot without a title names title 0.
        slot: [R] int32, slot of each row.
        nth: [R] int32, position within its title of the bag in each row; −1 for a repetition.
        bag: [R] int64, bag in each row.
    """

    slots: int
    count: int
    longest: int
    values: Tensor
    starts: Tensor
    counts: Tensor
    titles: Tensor
    slot: Tensor
    nth: Tensor
    bag: Tensor

    @classmethod
    def of(cls, bags: Tensor, offsets: Tensor, slots: int | None = None) -> Planes:
        """Lay out ``bags`` [G, D] of titles with ``offsets`` [Q+1] (CPU).

        Args:
            bags: Vectors of all titles.
            offsets: Where each title begins.
            slots: T; None: the number of :data:`COST` with the lowest estimated time.

        Example:
            >>> planes = Planes.of(torch.arange(6.0)[:, None], torch.tensor([0, 1, 4, 6]), slots=4)
            >>> planes.values.view(-1, 4)  # sorted by length: title 1, title 2, title 0, no title
            tensor([[1., 4., 0., 0.],
                    [2., 5., 0., 0.],
                    [3., 5., 0., 0.]])
            >>> planes.nth.view(-1, 4)
            tensor([[ 0,  0,  0, -1],
                    [ 1,  1, -1, -1],
                    [ 2, -1, -1, -1]], dtype=torch.int32)
        """
        lengths, order = offsets.diff().sort(descending=True, stable=True)
        slots = slots or _cheapest(lengths)
        groups = -(-len(order) // slots)
        unused = order.new_zeros(groups * slots - len(order))
        counts, titles = torch.cat([lengths, unused]), torch.cat([order, unused])
        planes = counts[::slots]
        starts = torch.cat([planes.new_zeros(1), planes.cumsum(0)])
        group = torch.arange(groups).repeat_interleave(planes)
        nth = (torch.arange(len(group)) - starts[group])[:, None]
        slot = group[:, None] * slots + torch.arange(slots)
        last = (counts[slot] - 1).clamp_min(0)
        bag = (offsets[titles[slot]] + torch.minimum(nth, last)).clamp_max(max(0, len(bags) - 1))
        nth = nth.where(nth < counts[slot], -1)
        # One copy to the device: each costs as much as a small kernel.
        narrow = torch.cat([x.flatten() for x in (starts, counts, slot, nth)]).to(torch.int32)
        narrow = to_device(narrow, bags.device)
        wide = to_device(torch.cat([titles, bag.flatten()]), bags.device)
        rows = bag.numel()
        starts, counts, slot, nth = torch.split(narrow, [groups + 1, groups * slots, rows, rows])
        titles, bag = torch.split(wide, [groups * slots, rows])
        longest = int(lengths[0]) if len(lengths) else 0
        values = bags.index_select(0, bag)
        return cls(slots, len(order), longest, values, starts, counts, titles, slot, nth, bag)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.starts) - 1

    def of_slots(self, per_title: Tensor) -> Tensor:
        """Give each slot its title's number: [Q] -> [groups × T]."""
        return per_title.index_select(0, self.titles)

    def to_bags(self, rows: Tensor, count: int) -> Tensor:
        """Put rows [R, D] back in the order of the bags [``count``, D]; drop repetitions."""
        real = self.nth >= 0
        out = rows.new_zeros(count, rows.shape[1])
        return out.index_add_(0, self.bag, rows * real[:, None])


def _cheapest(lengths: Tensor) -> int:
    """Choose T for falling ``lengths``: few slots repeat few bags, many use the GPU better."""
    return min(COST, key=lambda slots: COST[slots] * slots * int(lengths[::slots].sum()))
