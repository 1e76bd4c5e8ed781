"""Cut titles into entity bags without any model: what BagFormer calls a bag is one entity.

python examples/bags_only.py [TITLE...]
"""

from __future__ import annotations

import sys

from bagformer_cli.text.lexicon import Lexicon
from bagformer_cli.text.segmenter import Segmenter

TITLES = [
    "红色碎花连衣裙女夏季新款",
    "耐克运动鞋42码",
    "格力空调KFR-35大1.5匹",
    "大容量保温杯500ml 2件装",
]


def main() -> None:
    """Cut titles and print their bags."""
    titles = sys.argv[1:] or TITLES
    segmenter = Segmenter(Lexicon.load())  # the built-in dictionaries
    cut = segmenter.segment_batch(titles)  # thousands of titles at once
    for bags in segmenter.unpack(titles, cut):
        print(" | ".join(f"{bag.text}:{bag.type or bag.source}" for bag in bags))


if __name__ == "__main__":
    main()
