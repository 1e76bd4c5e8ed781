"""The fifty kinds of things: their drawing functions, and the words of sellers and buyers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bagformer_cli.demo import kinds_accessories as accessories
from bagformer_cli.demo import kinds_clothes as clothes
from bagformer_cli.demo import kinds_devices as devices
from bagformer_cli.demo import kinds_home as home
from bagformer_cli.demo import kinds_toys as toys
from bagformer_cli.demo.canvas import Pen

# Groups: kinds of one group are in one image.
WEAR, KITCHEN, HOME, TECH, BEAUTY, KIDS = "wear", "kitchen", "home", "tech", "beauty", "kids"

# Trades: kinds of one trade share marketing words.
CLOTHES, SHOES, BAGS, CROCKERY, FURNITURE = "clothes", "shoes", "bags", "crockery", "furniture"
DEVICES, COSMETICS, TOYS, SWEETS, PRESENTS = "devices", "cosmetics", "toys", "sweets", "presents"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing.

    Args:
        key: Key in ``attributes.jsonl``.
        draw: Draws it on the tile of a pen.
        group: Group of kinds that are sold together.
        trade: Trade that gives the marketing words of its titles.
        name: Most frequent name.
        others: Other names.
        part: Name of its small part in another colour.
        audience: Words for the people that sellers offer it to.
        sizes: Sizes, amounts and packs, as titles give them.
    """

    key: str
    draw: Callable[[Pen], None]
    group: str
    trade: str
    name: str
    others: tuple[str, ...]
    part: str
    audience: tuple[str, ...]
    sizes: tuple[str, ...]


_ADULTS = "女 男 女士 男士 男女通用 情侣款"
_WOMEN = "女 女士 女款 少女 学生"
_EVERYONE = "儿童 男女通用 学生 成人 亲子款"
_FAMILY = "家用 学生宿舍 办公室 家庭装"
_CHILDREN = "儿童 宝宝 男孩 女孩 小学生 婴儿"
_SIZES = "M码 L码 XL码 2XL 均码 S-3XL 加大码"
_FEET = "36码 37码 38码 39码 40码 42码"

_Row = tuple[Callable[[Pen], None], str, str, str, str, str]


def _kinds(group: str, trade: str, *rows: _Row) -> tuple[Kind, ...]:
    """Make the kinds of a group and trade; rows are (draw, name, others, part, audience, sizes)."""
    return tuple(
        Kind(
            draw.__name__,
            draw,
            group,
            trade,
            name,
            tuple(others.split()),
            part,
            tuple(audience.split()),
            tuple(sizes.split()),
        )
        for draw, name, others, part, audience, sizes in rows
    )


KINDS: tuple[Kind, ...] = (
    *_kinds(
        WEAR,
        CLOTHES,
        (clothes.tshirt, "T恤", "短袖T恤", "口袋", _ADULTS, _SIZES),
        (clothes.hoodie, "卫衣", "连帽卫衣", "口袋", _ADULTS, _SIZES),
        (clothes.coat, "风衣", "风衣外套", "腰带", _ADULTS, _SIZES),
        (clothes.dress, "连衣裙", "长裙", "腰带", _WOMEN, _SIZES),
        (clothes.skirt, "半身裙", "短裙", "裙腰", _WOMEN, _SIZES),
        (clothes.trousers, "长裤", "休闲长裤", "裤脚", _ADULTS, _SIZES),
        (clothes.shorts, "短裤", "五分短裤", "裤腰", _ADULTS, _SIZES),
        (clothes.scarf, "围巾", "围脖", "流苏", _ADULTS, "180cm 200cm 加长款"),
        (clothes.socks, "袜子", "中筒袜", "袜口", _ADULTS, "5双装 3双装 均码"),
        (clothes.gloves, "手套", "保暖手套", "袖口", _ADULTS, "1双装 均码"),
        (clothes.tie, "领带", "正装领带", "领带夹", "男 男士 商务", "8cm 6cm窄版"),
        (accessories.cap, "棒球帽", "鸭舌帽", "帽檐", _ADULTS, "56-60cm 可调节"),
        (accessories.sunhat, "遮阳帽", "大檐帽", "帽带", _WOMEN, "58cm 可折叠"),
        (accessories.beanie, "毛线帽", "针织帽", "毛球", _ADULTS, "均码 加厚款"),
    ),
    *_kinds(
        WEAR,
        SHOES,
        (accessories.sneaker, "运动鞋", "跑步鞋", "鞋底", _ADULTS, _FEET),
        (accessories.heel, "高跟鞋", "细跟鞋", "鞋跟", _WOMEN, f"{_FEET} 7cm跟高"),
        (accessories.boot, "靴子", "马丁靴", "鞋底", _ADULTS, _FEET),
    ),
    *_kinds(
        WEAR,
        BAGS,
        (accessories.handbag, "手提包", "手拎包", "提手", _WOMEN, "大号 中号"),
        (accessories.backpack, "双肩包", "书包", "前袋", _EVERYONE, "20L 30L"),
        (accessories.suitcase, "行李箱", "拉杆箱", "绑带", _ADULTS, "20寸 24寸 28寸"),
        (accessories.umbrella, "雨伞", "晴雨伞", "伞柄", _ADULTS, "8骨 10骨 大号"),
        (accessories.watch, "手表", "腕表", "表盘", _ADULTS, "40mm 36mm"),
    ),
    *_kinds(
        KITCHEN,
        CROCKERY,
        (home.mug, "马克杯", "咖啡杯", "把手", _FAMILY, "350ml 400ml 2只装"),
        (home.thermos, "保温杯", "保温水杯", "杯盖", _EVERYONE, "500ml 350ml 1L"),
        (home.pan, "平底锅", "煎锅", "手柄", _FAMILY, "26cm 28cm"),
        (home.pot, "汤锅", "炖锅", "锅盖", _FAMILY, "22cm 24cm 4L"),
        (home.kettle, "电热水壶", "烧水壶", "底座", _FAMILY, "1.5L 1.8L"),
        (home.teapot, "茶壶", "泡茶壶", "壶盖", _FAMILY, "600ml 1000ml"),
        (clothes.apron, "围裙", "厨房围裙", "口袋", _FAMILY, "2条装 均码"),
    ),
    *_kinds(
        HOME,
        FURNITURE,
        (home.pillow, "抱枕", "靠枕", "包边", _FAMILY, "45x45cm 2只装"),
        (home.lamp, "台灯", "床头灯", "底座", _FAMILY, "LED 12W"),
        (home.vase, "花瓶", "插花瓶", "花朵", _FAMILY, "高25cm 大号"),
        (home.chair, "椅子", "餐椅", "坐垫", _FAMILY, "2把装 高90cm"),
        (home.sofa, "沙发", "布艺沙发", "靠垫", _FAMILY, "双人位 1.8米"),
        (home.clock, "闹钟", "小闹钟", "铃铛", "学生 儿童 宿舍", "12cm 4寸"),
        (devices.fan, "电风扇", "台扇", "扇叶", _FAMILY, "12寸 9寸 35W"),
    ),
    *_kinds(
        TECH,
        DEVICES,
        (devices.headphones, "耳机", "头戴式耳机", "耳罩", _EVERYONE, "5.3版 40mm"),
        (devices.phonecase, "手机壳", "手机套", "指环", _EVERYONE, "6.1寸 6.7寸"),
        (devices.gamepad, "游戏手柄", "无线手柄", "按键", _EVERYONE, "2.4G 双手柄"),
        (devices.camera, "相机", "照相机", "镜头圈", _EVERYONE, "2400万像素 32G"),
    ),
    *_kinds(
        BEAUTY, DEVICES, (devices.hairdryer, "吹风机", "电吹风", "风嘴", _FAMILY, "1800W 2000W")
    ),
    *_kinds(
        BEAUTY,
        COSMETICS,
        (devices.perfume, "香水", "淡香水", "瓶盖", _ADULTS, "50ml 100ml"),
        (devices.lipstick, "口红", "唇膏", "膏体", _WOMEN, "3.5g 2支装"),
    ),
    *_kinds(
        KIDS,
        TOYS,
        (toys.teddy, "玩具熊", "小熊公仔", "领结", _CHILDREN, "40cm 60cm"),
        (toys.toycar, "玩具车", "小汽车玩具", "车顶", _CHILDREN, "1:32 2只装"),
        (toys.duck, "小鸭子", "洗澡鸭", "嘴巴", _CHILDREN, "10只装 大号"),
        (toys.kite, "风筝", "儿童风筝", "尾巴", _CHILDREN, "1.2米 送100米线"),
    ),
    *_kinds(
        KIDS,
        SWEETS,
        (toys.cake, "蛋糕", "生日蛋糕", "奶油", _CHILDREN, "8寸 6寸 双层"),
        (toys.icecream, "冰淇淋", "甜筒", "樱桃", _CHILDREN, "75g 6支装"),
    ),
    *_kinds(KIDS, PRESENTS, (toys.giftbox, "礼盒", "礼品盒", "丝带", _ADULTS, "20cm 中号")),
)

KIND_KEYS = tuple(kind.key for kind in KINDS)

GROUPS: dict[str, tuple[int, ...]] = {
    group: tuple(i for i, kind in enumerate(KINDS) if kind.group == group)
    for group in (WEAR, KITCHEN, HOME, TECH, BEAUTY, KIDS)
}
