"""Translate the tables that experiments wrote in ``docs/NAME.md`` into ``docs/NAME.zh.md``.

The experiments with ``--page`` do this by themselves. Run it after a change of ``WORDS``, or of a
table by hand.

    python docs/experiments/chinese.py docs/methods.md docs/real_weights.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

WORDS = {
    "**no**": "**不成立**",
    "A − B (95 % interval)": "A − B（95 % 区间）",
    "A − B (95 % t-interval), text to image": "A − B（95 % t 区间），文搜图",
    "A − B, exchanged": "A − B，exchanged",
    "A − B, image to text": "A − B，图搜文",
    "A − B, mixed": "A − B，mixed",
    "A − B, one": "A − B，one",
    "A − B, three": "A − B，three",
    "A − B, two": "A − B，two",
    "CPU s": "CPU 秒",
    "CPU s of the chain": "整条链的 CPU 秒",
    "CPU s of the chain (A / B)": "整条链的 CPU 秒（A / B）",
    "CPU s per pretraining step": "预训练每步 CPU 秒",
    "ITC at full size": "原尺寸的 ITC",
    "ITC, ITM": "ITC，ITM",
    "ITC, MLM": "ITC，MLM",
    "ITC, MLM of whole bags": "ITC，遮住整袋的 MLM",
    "ITC, masked patches": "ITC，图块掩码",
    "ITC, momentum": "ITC，动量",
    "ITC, momentum, queue": "ITC，动量，队列",
    "alignment": "对齐",
    "alignment and matching": "对齐与匹配",
    "alignment, triplet": "对齐，三元组",
    "alignment, triplet after NCE": "对齐，NCE 之后三元组",
    "all": "全部",
    "arm": "设置",
    "bag-wise without ITC": "按袋，没有 ITC",
    "bag-wise without ITC and class vector": "按袋，没有 ITC 和类别向量",
    "bag-wise, ITC 0.1": "按袋，ITC 0.1",
    "bag-wise, ITC 1": "按袋，ITC 1",
    "bag-wise, ITC 1 without class vector": "按袋，ITC 1，没有类别向量",
    "bag-wise, no clipping": "按袋，不裁剪梯度",
    "bag-wise, own projection": "按袋，有自己的投影",
    "bag-wise, own temperature": "按袋，有自己的温度",
    "bagwise": "按袋",
    "bagwise by means, no ITC": "按袋取平均，没有 ITC",
    "bagwise by means, not trained": "按袋取平均，未训练",
    "bagwise, no ITC": "按袋，没有 ITC",
    "bagwise, not trained": "按袋，未训练",
    "base, InfoNCE": "base，InfoNCE",
    "base, not trained": "base，未训练",
    "base, power hinge": "base，幂合页",
    "base, power hinge without j = i": "base，不含 j = i 的幂合页",
    "bytes per image": "每张图片字节",
    "captioner": "描述生成器",
    "captions": "说明",
    "cls, not trained": "cls，未训练",
    "fast + captioner rerank": "fast + 描述生成器精排",
    "fast, InfoNCE": "fast，InfoNCE",
    "fast, bag of words": "fast，词袋模型",
    "fast, power hinge": "fast，幂合页",
    "fine-tuning alone": "只做微调",
    "gain over fine-tuning alone (95 %)": "比只做微调提高（95 %）",
    "image to text": "图搜文",
    "images": "图片",
    "inflate, power hinge": "inflate，幂合页",
    "matching of alignment": "对齐教的匹配",
    "matching, end to end": "匹配，端到端",
    "matching, frozen backbone": "匹配，骨干冻结",
    "matching, frozen backbone, distilled": "匹配，骨干冻结，蒸馏",
    "method": "方法",
    "method A": "方法 A",
    "method B": "方法 B",
    "ms per query": "每个查询毫秒",
    "pretraining": "预训练",
    "product photographs": "商品照片",
    "product titles": "商品标题",
    "ranked by": "用什么排序",
    "seconds for the pool": "排完整个库的秒数",
    "seeds": "种子",
    "shrinktofast, InfoNCE": "shrinktofast，InfoNCE",
    "shrinktofast, from scratch": "shrinktofast，从零开始",
    "stamps": "图章",
    "steps": "步数",
    "steps of the chain": "整条链的步数",
    "steps of the chain (A / B)": "整条链的步数（A / B）",
    "supported": "成立",
    "text to image": "文搜图",
    "the same with a matching loss": "同一模型，匹配损失",
    "token-wise without ITC and class vector": "按词元，没有 ITC 和类别向量",
    "tokenwise": "按词元",
    "tokenwise, no ITC": "按词元，没有 ITC",
    "tokenwise, not trained": "按词元，未训练",
    "transfer, photographs": "迁移，照片",
    "transfer, titles": "迁移，标题",
    "vectors": "向量",
    "vectors (title / image)": "向量（标题 / 图片）",
    "yes": "成立",
}
LONGER_TRAINING = r"^(.+), steps × (\d)(.*)$"
RERANKED = " + captioner rerank"
SENTENCES = (
    (r"^Equal steps:$", "相同步数："),
    (r"^Equal CPU time \((\S+) s\):$", r"相同 CPU 时间（\1 秒）："),
    (
        r"^(\S+) images, (\S+) queries, (\S+) steps each:$",
        r"\1 张图片，\2 个查询，各训练 \3 步：",
    ),
)


def chinese(lines: Sequence[str]) -> list[str]:
    """Translate known cells of tables and known sentences; leave the others as they are."""
    return [_row(line) if line.startswith("|") else _sentence(line) for line in lines]


def _row(line: str) -> str:
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    known = [_cell(cell) for cell in cells]
    return line if known == cells else "|" + "|".join(f" {cell} " for cell in known) + "|"


def _cell(cell: str) -> str:
    name = cell.strip("*")
    if cell not in WORDS and name != cell:  # a claim, in bold
        return cell.replace(name, _cell(name))
    if longer := re.match(LONGER_TRAINING, cell):
        method, times, rest = longer.groups()
        cell = f"{WORDS.get(method, method)}，步数 × {times}{rest}"
    return WORDS.get(cell, cell.replace(RERANKED, " + 描述生成器精排"))


def _sentence(line: str) -> str:
    for pattern, text in SENTENCES:
        line = re.sub(pattern, text, line)
    return line


def twin_of(page: Path) -> Path:
    """Return the path of a page's Chinese twin."""
    return page.with_suffix(".zh.md")


def translate_sections(page: Path) -> str:
    """Return the text of a page's Chinese twin, with its marked sections made from the page's."""
    text = twin_of(page).read_text("utf-8")
    pattern = r"<!-- (\w+): begin -->\n(.*?)\n<!-- \1: end -->"
    for name, lines in re.findall(pattern, page.read_text("utf-8"), re.DOTALL):
        begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
        before, rest = text.split(begin, 1)
        _, after = rest.split(end, 1)
        text = "".join([before, begin, "\n".join(chinese(lines.split("\n"))), end, after])
    return text


def main() -> None:
    """Write the tables of the Chinese pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", type=Path, nargs="+", help="English pages, such as docs/NAME.md")
    for page in parser.parse_args().pages:
        twin_of(page).write_text(translate_sections(page), "utf-8")


if __name__ == "__main__":
    main()
