"""Write the titles of sellers and the queries of buyers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bagformer_cli.demo.kinds import (
    BAGS,
    BEAUTY,
    CLOTHES,
    COSMETICS,
    CROCKERY,
    DEVICES,
    FURNITURE,
    HOME,
    KIDS,
    KINDS,
    KITCHEN,
    PRESENTS,
    SHOES,
    SWEETS,
    TECH,
    TOYS,
    WEAR,
    Kind,
)
from bagformer_cli.demo.palette import COLOURS, PATTERNS, SOLID
from bagformer_cli.demo.scene import Item


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# invented brands
BRANDS = _words(
    "沐小朵 青禾里 乐途客 星野屿 南枝集 暖橘社 简木生 绒小鹿 贝朵里 云栖舍 森与溪 米果家 "
    "朵可薇 半夏记 漫时候 北山郎 鹿眠堂 西柚派 Molika Kavono TINDORA SENYA Luvori HOMIQ"
)

_YEARS = ("2023", "2024", "2025", "24年", "25年")
_SEASONS = {
    WEAR: _words("春季 夏季 秋冬 春秋 冬季 夏天 早秋 四季"),
    KITCHEN: _words("四季 夏季 冬季"),
    HOME: _words("夏季 冬季 四季 乔迁"),
    TECH: _words("开学季 夏季 年货节"),
    BEAUTY: _words("春季 秋冬 七夕 情人节"),
    KIDS: _words("儿童节 春天 夏季 圣诞节"),
}
_SELLING = {
    CLOTHES: _words(
        "新款 百搭 显瘦 韩版 宽松 时尚 ins潮 网红 小众 高级感 纯棉 舒适 复古 休闲 设计感 潮牌 "
        "气质 加厚 法式 透气"
    ),
    SHOES: _words("新款 百搭 舒适 软底 透气 防滑 真皮 轻便 韩版 时尚 网红 增高 耐磨 休闲 通勤"),
    BAGS: _words("新款 大容量 轻便 防水 百搭 小众 高级感 学生 旅行 复古 ins风 耐用 质感 通勤 轻奢"),
    CROCKERY: _words(
        "大容量 家用 加厚 防烫 耐用 北欧风 高颜值 食品级 简约 日式 创意 易清洗 办公室 大口径 精致"
    ),
    FURNITURE: _words("北欧 ins风 客厅 卧室 简约现代 小户型 创意 装饰 高颜值 轻奢 宿舍 舒适 网红"),
    DEVICES: _words("便携 高颜值 大牌平替 学生党 专业 智能 正品 女神款 新品 耐用 轻便 复古 高级感"),
    COSMETICS: _words("持久 不掉色 小众 女神 平价 学生党 送女友 滋润 清新 高级感 网红 大牌平替"),
    TOYS: _words("可爱 益智 安全 超萌 网红 生日礼物 卡通 大号 仿真 女友礼物 幼儿园 治愈系 创意"),
    SWEETS: _words("网红 可爱 新鲜 现做 创意 生日 下午茶 同城配送 动物奶油 低糖 派对 手工"),
    PRESENTS: _words("高档 精美 创意 伴手礼 生日礼物 仪式感 空盒 ins风 简约 商务 结婚 大号"),
}
_NOISE = _words(
    "包邮 正品 爆款 厂家直销 现货速发 特价 清仓 新品上市 官方旗舰店 热卖 秒杀 限时折扣 "
    "送运费险 同款 专柜 顺丰"
)
_BRACKETS = ("【{}】", "[{}]", "「{}」", "{}！", "({})")
_SETS = {2: ("套装", "两件套", "组合", "搭配套装"), 3: ("三件套", "套装", "组合装", "全套")}
_JOINS = ("+", " ", "配", " 搭配 ", "加", "、")
_JOINS_KIND_FIRST = ("+", " / ", ", ", "、")
_GIFTS = ("送", "赠", " 买就送", "赠送")

LONGEST = 34
"""Characters of a seller's title, about; shops allow 30 to 60."""


def training_texts(
    items: Sequence[Item], gift: bool, rng: random.Random
) -> list[tuple[str, list[Item]]]:
    """Write a seller's title, a buyer's query, and names of things alone, for one picture.

    Some titles name no colour, as sellers do, and some texts are only a kind ("连衣裙"). To match
    those, a model must know the kinds. Without such texts it learns the colours, which separate
    most pictures of a batch, long before the kinds (docs/log.md).

    Args:
        items: The things in the picture.
        gift: Whether the last thing is a gift.
        rng: Draws words and order.

    Returns:
        Texts, each with the things that it names.
    """
    coloured = 0.75 if len(items) > 1 else 1.0
    named = [_partly_named(item, rng, pattern=0.85, part=0.06) for item in items]
    if rng.random() > coloured:
        named = [(kind, -1, pattern, -1) for kind, _, pattern, _ in named]
    if not gift:
        rng.shuffle(named)
    texts = [(seller_title(named, gift, rng), named)]
    asked = _asked(items, rng)
    texts.append((buyer_query(asked, rng), asked))
    if len(items) > 1 and rng.random() < 0.4:
        plain = [(item[0], -1, -1, -1) for item in rng.sample(list(items), len(items))]
        texts.append((buyer_query(plain, rng), plain))
    kind, _, pattern, _ = rng.choice(list(items))
    alone = [(kind, -1, -1, -1)]
    if pattern != SOLID:
        alone.append((kind, -1, pattern, -1))
    texts.extend((phrase(name, 0, rng), [name]) for name in alone)
    return texts


def evaluation_texts(items: Sequence[Item], rng: random.Random) -> list[tuple[str, list[Item]]]:
    """Write a buyer's query for one picture, with the things that it names.

    Most queries for pictures with several things name two or three, so that half of all queries of
    a split do: a query of one thing tests recognition, one of several also which is which. Half of
    those leave the colour of one thing open, so that colours alone answer few.
    """
    if len(items) > 1 and rng.random() < SEVERAL_ASKED:
        amount = 3 if len(items) > 2 and rng.random() < THREE_ASKED else 2
        asked = named_things(items, amount, rng)
        if rng.random() < COLOUR_LEFT_OPEN:
            position = rng.randrange(amount)
            kind, _, pattern, part = asked[position]
            asked[position] = (kind, -1, pattern, part)
    else:
        asked = _asked_of_one(rng.choice(list(items)), rng)
    return [(buyer_query(asked, rng), asked)]


SEVERAL_ASKED, THREE_ASKED = 0.87, 0.5
"""In validation and test: the share of pictures of several things of which a query names several,
and of these, of pictures of three things, the share of queries that name all three."""

COLOUR_LEFT_OPEN = 0.5
"""In validation and test: the share of queries of several things with one thing uncoloured."""


def named_things(items: Sequence[Item], amount: int, rng: random.Random) -> list[Item]:
    """Name ``amount`` things in a random order: the colour of each, the pattern of some."""
    chosen = rng.sample(list(items), amount)
    return [_partly_named(item, rng, pattern=0.2, part=0.0) for item in chosen]


def named_part(item: Item, rng: random.Random) -> Item:
    """Name a thing with the colour of its small part."""
    return _partly_named(item, rng, pattern=0.5, part=1.0)


def named_fully(item: Item, rng: random.Random) -> Item:
    """Name a thing with colour and pattern."""
    return _partly_named(item, rng, pattern=1.0, part=0.06)


def _asked(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """Choose what a buyer names: colour, pattern or both of one thing, or the colours of two."""
    if len(items) > 1 and rng.random() < 0.27:
        return [
            _partly_named(item, rng, pattern=0.2, part=0.0) for item in rng.sample(list(items), 2)
        ]
    return _asked_of_one(rng.choice(list(items)), rng)


def _asked_of_one(item: Item, rng: random.Random) -> list[Item]:
    """Choose what a buyer names of one thing: colour, pattern or both."""
    draw = rng.random()
    if draw < 0.1 and item[2] != SOLID:
        return [(item[0], -1, item[2], -1)]
    if draw < 0.14:
        return [_partly_named(item, rng, pattern=0.5, part=1.0)]
    return [_partly_named(item, rng, pattern=0.25, part=0.0)]


def _partly_named(item: Item, rng: random.Random, *, pattern: float, part: float) -> Item:
    """Name the colour of ``item``, and pattern and part colour with these probabilities."""
    share = pattern if item[2] != SOLID else pattern * 0.15
    return (
        item[0],
        item[1],
        item[2] if rng.random() < share else -1,
        item[3] if rng.random() < part else -1,
    )


def phrase(named: Item, order: int, rng: random.Random) -> str:
    """Name one thing, in one of four word orders.

    Args:
        named: The thing; -1 for an attribute that is left open.
        order: 0 "红色条纹T恤", 1 "条纹红色T恤", 2 "T恤 红色条纹", 3 "红色T恤条纹".
        rng: Chooses between names that mean the same.
    """
    kind, colour, pattern, part = named
    name = _name(KINDS[kind].name, KINDS[kind].others, rng)
    c = _name(COLOURS[colour].name, COLOURS[colour].others, rng) if colour >= 0 else ""
    p = _name(PATTERNS[pattern].name, PATTERNS[pattern].others, rng) if pattern >= 0 else ""
    if order == 1:
        text = p + c + name
    elif order == 2:
        text = f"{name} {c}{p}" if c or p else name
    elif order == 3 and c:
        text = c + name + p
    else:
        text = c + p + name
    if part >= 0:
        text += rng.choice((" ", "带")) + COLOURS[part].name + KINDS[kind].part
    return text


def buyer_query(named: Sequence[Item], rng: random.Random) -> str:
    """Write a short query for one thing or two.

    Args:
        named: The things; -1 for an attribute that is left open.
        rng: Draws order and words.
    """
    order = rng.choice((0, 0, 0, 0, 0, 1, 2, 2))
    join = rng.choice((" ", "+", ",") if order == 2 else (" ", " ", "+", "配", "和"))
    text = join.join(phrase(thing, order, rng) for thing in named)
    chance = rng.random()
    kind = KINDS[named[0][0]]
    if chance < 0.08 and len(named) == 1:
        text += rng.choice(("", " ")) + rng.choice(kind.audience)
    elif chance < 0.14:
        text += rng.choice((" ", "")) + rng.choice(("新款", "套装" if len(named) > 1 else "包邮"))
    elif chance < 0.18 and len(named) == 1:
        text = rng.choice(_SELLING[kind.trade]) + text
    return text


def long_title(named: Sequence[Item], gift: bool, rng: random.Random) -> str:
    """Write a seller's title of ten or more words: the goods, and words about anything else.

    Args:
        named: The things, the gift last; -1 for what the title leaves open.
        gift: Whether the last thing comes with the others as a gift.
        rng: Decides words and order.
    """
    said = sum(1 + sum(value >= 0 for value in thing[1:]) for thing in named)
    words: list[tuple[str, int]] = []
    ahead = 0
    while said + len(words) < LONG_TITLE_WORDS:
        known = {word for word, _ in words}
        for word, place in _extras(KINDS[named[0][0]], rng):
            second_brand = word in BRANDS and known & set(BRANDS)
            if word in known or second_brand:
                continue
            ahead += len(word) if place < 0 else 0
            words.append((word, -1 if place < 0 and ahead <= MOST_AHEAD else 1))
            known.add(word)
    return seller_title(named, gift, rng, words)


LONG_TITLE_WORDS = 10
MOST_AHEAD = 8
"""Characters before the goods of a long title: a model that reads 25 tokens sees the goods."""


def seller_title(
    named: Sequence[Item],
    gift: bool,
    rng: random.Random,
    extras: Sequence[tuple[str, int]] | None = None,
) -> str:
    """Write a seller's title that names all of ``named``.

    Args:
        named: The things, the gift last; -1 for what the title leaves open.
        gift: Whether the last thing comes with the others as a gift.
        rng: Decides words and order.
        extras: Words about anything but the looks, -1 before the goods or 1 after them, all of
            which are used. None: some are drawn, as many as a title has room for.
    """
    lead = KINDS[named[0][0]]
    order = rng.choice((0, 0, 0, 0, 1, 1, 2, 3))
    texts = [phrase(thing, order, rng) for thing in named]
    if len(texts) == 1:
        goods = texts[0]
    else:
        join = rng.choice(_JOINS_KIND_FIRST if order == 2 else _JOINS)
        if gift:
            goods = join.join(texts[:-1]) + rng.choice(_GIFTS) + texts[-1]
        else:
            goods = join.join(texts)
            if rng.random() < 0.6:
                goods += rng.choice(("", " ")) + rng.choice(_SETS[len(texts)])
    words = _extras(lead, rng) if extras is None else extras
    before, after = [goods], [""]
    room = LONGEST - len(goods)
    for word, place in words:
        if len(word) <= room or extras is not None:
            room -= len(word)
            (before if place < 0 else after).append(word)
    head, tail = before[1:], after[1:]
    if rng.random() < 0.35:
        rng.shuffle(head)
    rng.shuffle(tail)
    gap = rng.choice(("", "", " ", " "))
    glue = " " if len(named) > 1 or rng.random() < 0.5 else gap
    text = gap.join(head)
    text = text + (glue if text else "") + goods
    if tail:
        text += rng.choice(("", " ")) + gap.join(tail)
    return text


def _extras(kind: Kind, rng: random.Random) -> list[tuple[str, int]]:
    """Words about anything but the looks: (word, -1 before the goods or 1 after them)."""
    words: list[tuple[str, int]] = []
    if rng.random() < 0.18:
        words.append((rng.choice(_BRACKETS).format(rng.choice(_NOISE)), -1))
    if rng.random() < 0.55:
        words.append((rng.choice(BRANDS), -1))
    if rng.random() < 0.35:
        season = rng.choice(_SEASONS[kind.group])
        words.append((rng.choice(("", rng.choice(_YEARS))) + season + rng.choice(("", "新款")), -1))
    if rng.random() < 0.45:
        words.append((rng.choice(kind.audience), rng.choice((-1, 1))))
    praise = rng.sample(_SELLING[kind.trade], rng.choice((0, 1, 1, 2, 3)))
    words.extend((word, rng.choice((-1, 1, 1))) for word in praise)
    if rng.random() < 0.35:
        words.append((rng.choice(kind.sizes), 1))
    if rng.random() < 0.18:
        words.append((_model(rng), 1))
    if rng.random() < 0.22:
        words.append((rng.choice(_NOISE), 1))
    return words


def _model(rng: random.Random) -> str:
    """A model number such as KF-208 or A1024."""
    letters = "".join(rng.choice("ABCDEFGHKLMNPQSTXYZ") for _ in range(rng.choice((1, 2))))
    return f"{letters}{rng.choice(('', '-'))}{rng.randrange(100, 9999)}"


def _name(name: str, others: Sequence[str], rng: random.Random) -> str:
    return rng.choice(others) if rng.random() < 0.12 else name
