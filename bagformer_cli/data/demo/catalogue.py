"""The fifty kinds of things: how each is drawn, and the words sellers and buyers have for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bagformer_cli.data.demo import kinds_accessories as accessories
from bagformer_cli.data.demo import kinds_clothes as clothes
from bagformer_cli.data.demo import kinds_devices as devices
from bagformer_cli.data.demo import kinds_home as home
from bagformer_cli.data.demo import kinds_toys as toys
from bagformer_cli.data.demo.canvas import Pen

WEAR = "wear"
KITCHEN = "kitchen"
HOME = "home"
TECH = "tech"
KIDS = "kids"
BEAUTY = "beauty"

# trades: whose selling words a title uses
CLOTHES, SHOES, BAGS, CROCKERY, FURNITURE = "clothes", "shoes", "bags", "crockery", "furniture"
DEVICES, COSMETICS, TOYS, SWEETS, PRESENTS = "devices", "cosmetics", "toys", "sweets", "presents"

ADULTS = ("女", "男", "女士", "男士", "男女通用", "情侣款")
WOMEN = ("女", "女士", "女款", "少女", "学生")
EVERYONE = ("儿童", "男女通用", "学生", "成人", "亲子款")
FAMILY = ("家用", "学生宿舍", "办公室", "家庭装")
CHILDREN = ("儿童", "宝宝", "男孩", "女孩", "小学生", "婴儿")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing.

    Args:
        key: Its name in ``attributes.jsonl``.
        draw: Draws it on a pen's tile.
        group: What it is photographed and sold together with.
        trade: Whose selling words its titles use.
        name: What it is called most of the time.
        others: What else it is called.
        part: What its small part in another colour is called.
        audience: For whom sellers say it is.
        sizes: Sizes, amounts and packs as titles give them.
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


_CLOTHES_SIZES = ("M码", "L码", "XL码", "2XL", "均码", "S-3XL", "加大码")
_SHOE_SIZES = ("36码", "37码", "38码", "39码", "40码", "42码")

KINDS: tuple[Kind, ...] = (
    # clothes
    Kind(
        "tshirt", clothes.tshirt, WEAR, CLOTHES, "T恤", ("短袖T恤",), "口袋", ADULTS, _CLOTHES_SIZES
    ),
    Kind(
        "hoodie",
        clothes.hoodie,
        WEAR,
        CLOTHES,
        "卫衣",
        ("连帽卫衣",),
        "口袋",
        ADULTS,
        _CLOTHES_SIZES,
    ),
    Kind(
        "coat", clothes.coat, WEAR, CLOTHES, "风衣", ("风衣外套",), "腰带", ADULTS, _CLOTHES_SIZES
    ),
    Kind("dress", clothes.dress, WEAR, CLOTHES, "连衣裙", ("长裙",), "腰带", WOMEN, _CLOTHES_SIZES),
    Kind("skirt", clothes.skirt, WEAR, CLOTHES, "半身裙", ("短裙",), "裙腰", WOMEN, _CLOTHES_SIZES),
    Kind(
        "trousers",
        clothes.trousers,
        WEAR,
        CLOTHES,
        "长裤",
        ("休闲长裤",),
        "裤脚",
        ADULTS,
        _CLOTHES_SIZES,
    ),
    Kind(
        "shorts",
        clothes.shorts,
        WEAR,
        CLOTHES,
        "短裤",
        ("五分短裤",),
        "裤腰",
        ADULTS,
        _CLOTHES_SIZES,
    ),
    Kind(
        "scarf",
        clothes.scarf,
        WEAR,
        CLOTHES,
        "围巾",
        ("围脖",),
        "流苏",
        ADULTS,
        ("180cm", "200cm加长"),
    ),
    Kind(
        "socks",
        clothes.socks,
        WEAR,
        "袜子",
        ("中筒袜",),
        "袜口",
        ADULTS,
        ("5双装", "3双装", "均码"),
    ),
    Kind(
        "gloves",
        clothes.gloves,
        WEAR,
        CLOTHES,
        "手套",
        ("保暖手套",),
        "袖口",
        ADULTS,
        ("1双装", "均码"),
    ),
    Kind(
        "tie",
        clothes.tie,
        WEAR,
        "领带",
        ("正装领带",),
        "领带夹",
        ("男", "男士"),
        ("8cm", "6cm窄版"),
    ),
    Kind(
        "apron",
        clothes.apron,
        KITCHEN,
        CLOTHES,
        "围裙",
        ("厨房围裙",),
        "口袋",
        FAMILY,
        ("2条装", "均码"),
    ),
    # hats, shoes, bags
    Kind(
        "cap",
        accessories.cap,
        WEAR,
        CLOTHES,
        "棒球帽",
        ("鸭舌帽",),
        "帽檐",
        ADULTS,
        ("56-60cm", "可调节"),
    ),
    Kind(
        "sunhat",
        accessories.sunhat,
        WEAR,
        CLOTHES,
        "遮阳帽",
        ("大檐帽",),
        "帽带",
        WOMEN,
        ("58cm", "可折叠"),
    ),
    Kind(
        "beanie",
        accessories.beanie,
        WEAR,
        "毛线帽",
        ("针织帽",),
        "毛球",
        ADULTS,
        ("均码", "加厚款"),
    ),
    Kind(
        "sneaker",
        accessories.sneaker,
        WEAR,
        SHOES,
        "运动鞋",
        ("跑步鞋",),
        "鞋底",
        ADULTS,
        _SHOE_SIZES,
    ),
    Kind(
        "heel",
        accessories.heel,
        WEAR,
        "高跟鞋",
        ("细跟鞋",),
        "鞋跟",
        WOMEN,
        (*_SHOE_SIZES, "7cm跟高"),
    ),
    Kind("boot", accessories.boot, WEAR, SHOES, "靴子", ("马丁靴",), "鞋底", ADULTS, _SHOE_SIZES),
    Kind(
        "handbag",
        accessories.handbag,
        WEAR,
        BAGS,
        "手提包",
        ("手拎包",),
        "提手",
        WOMEN,
        ("大号", "中号"),
    ),
    Kind(
        "backpack",
        accessories.backpack,
        WEAR,
        "双肩包",
        ("书包",),
        "前袋",
        EVERYONE,
        ("20L", "30L"),
    ),
    Kind(
        "suitcase",
        accessories.suitcase,
        WEAR,
        "行李箱",
        ("拉杆箱",),
        "绑带",
        ADULTS,
        ("20寸", "24寸", "28寸"),
    ),
    Kind(
        "umbrella",
        accessories.umbrella,
        WEAR,
        BAGS,
        "雨伞",
        ("晴雨伞",),
        "伞柄",
        ADULTS,
        ("8骨", "10骨"),
    ),
    Kind(
        "watch", accessories.watch, WEAR, BAGS, "手表", ("腕表",), "表盘", ADULTS, ("40mm", "36mm")
    ),
    # kitchen
    Kind(
        "mug",
        home.mug,
        KITCHEN,
        CROCKERY,
        "马克杯",
        ("咖啡杯",),
        "把手",
        FAMILY,
        ("350ml", "400ml", "2只装"),
    ),
    Kind(
        "thermos",
        home.thermos,
        KITCHEN,
        CROCKERY,
        "保温杯",
        ("保温水杯",),
        "杯盖",
        EVERYONE,
        ("500ml", "1L"),
    ),
    Kind("pan", home.pan, KITCHEN, CROCKERY, "平底锅", ("煎锅",), "手柄", FAMILY, ("26cm", "28cm")),
    Kind(
        "pot",
        home.pot,
        KITCHEN,
        CROCKERY,
        "汤锅",
        ("炖锅",),
        "锅盖",
        FAMILY,
        ("22cm", "24cm", "4L"),
    ),
    Kind(
        "kettle",
        home.kettle,
        KITCHEN,
        CROCKERY,
        "电热水壶",
        ("烧水壶",),
        "底座",
        FAMILY,
        ("1.5L", "1.8L"),
    ),
    Kind(
        "teapot",
        home.teapot,
        KITCHEN,
        CROCKERY,
        "茶壶",
        ("泡茶壶",),
        "壶盖",
        FAMILY,
        ("600ml", "1000ml"),
    ),
    # home
    Kind(
        "pillow",
        home.pillow,
        HOME,
        FURNITURE,
        "抱枕",
        ("靠枕",),
        "包边",
        FAMILY,
        ("45x45cm", "2只装"),
    ),
    Kind("lamp", home.lamp, HOME, FURNITURE, "台灯", ("床头灯",), "底座", FAMILY, ("LED", "12W")),
    Kind(
        "vase", home.vase, HOME, FURNITURE, "花瓶", ("插花瓶",), "花朵", FAMILY, ("高25cm", "大号")
    ),
    Kind(
        "chair", home.chair, HOME, FURNITURE, "椅子", ("餐椅",), "坐垫", FAMILY, ("2把装", "高90cm")
    ),
    Kind(
        "sofa",
        home.sofa,
        HOME,
        FURNITURE,
        "沙发",
        ("布艺沙发",),
        "靠垫",
        FAMILY,
        ("双人位", "1.8米"),
    ),
    Kind(
        "clock",
        home.clock,
        HOME,
        FURNITURE,
        "闹钟",
        ("小闹钟",),
        "铃铛",
        ("学生", "儿童"),
        ("12cm", "4寸"),
    ),
    # electronics and beauty
    Kind(
        "fan",
        devices.fan,
        HOME,
        FURNITURE,
        "电风扇",
        ("台扇",),
        "扇叶",
        FAMILY,
        ("12寸", "9寸", "35W"),
    ),
    Kind(
        "headphones",
        devices.headphones,
        TECH,
        "耳机",
        ("头戴式耳机",),
        "耳罩",
        EVERYONE,
        ("5.3版",),
    ),
    Kind(
        "phonecase",
        devices.phonecase,
        TECH,
        "手机壳",
        ("手机套",),
        "指环",
        EVERYONE,
        ("6.1寸", "6.7寸"),
    ),
    Kind(
        "gamepad",
        devices.gamepad,
        TECH,
        "游戏手柄",
        ("无线手柄",),
        "按键",
        EVERYONE,
        ("2.4G", "双手柄"),
    ),
    Kind(
        "camera",
        devices.camera,
        TECH,
        "相机",
        ("照相机",),
        "镜头圈",
        EVERYONE,
        ("2400万像素", "32G"),
    ),
    Kind(
        "hairdryer",
        devices.hairdryer,
        TECH,
        "吹风机",
        ("电吹风",),
        "风嘴",
        FAMILY,
        ("1800W", "2000W"),
    ),
    Kind(
        "perfume",
        devices.perfume,
        BEAUTY,
        COSMETICS,
        "香水",
        ("淡香水",),
        "瓶盖",
        ADULTS,
        ("50ml", "100ml"),
    ),
    Kind(
        "lipstick",
        devices.lipstick,
        BEAUTY,
        COSMETICS,
        "口红",
        ("唇膏",),
        "膏体",
        WOMEN,
        ("3.5g", "2支装"),
    ),
    # toys, sweets, presents
    Kind(
        "teddy", toys.teddy, KIDS, TOYS, "玩具熊", ("小熊公仔",), "领结", CHILDREN, ("40cm", "60cm")
    ),
    Kind(
        "toycar",
        toys.toycar,
        KIDS,
        TOYS,
        "玩具车",
        ("小汽车玩具",),
        "车顶",
        CHILDREN,
        ("1:32", "2只装"),
    ),
    Kind(
        "duck", toys.duck, KIDS, TOYS, "小鸭子", ("洗澡鸭",), "嘴巴", CHILDREN, ("10只装", "大号")
    ),
    Kind(
        "kite",
        toys.kite,
        KIDS,
        TOYS,
        "风筝",
        ("儿童风筝",),
        "尾巴",
        CHILDREN,
        ("1.2米", "送100米线"),
    ),
    Kind(
        "cake",
        toys.cake,
        KIDS,
        SWEETS,
        "蛋糕",
        ("生日蛋糕",),
        "奶油",
        CHILDREN,
        ("8寸", "6寸", "双层"),
    ),
    Kind(
        "icecream",
        toys.icecream,
        KIDS,
        SWEETS,
        "冰淇淋",
        ("甜筒",),
        "樱桃",
        CHILDREN,
        ("75g", "6支装"),
    ),
    Kind(
        "giftbox",
        toys.giftbox,
        KIDS,
        PRESENTS,
        "礼盒",
        ("礼品盒",),
        "丝带",
        ADULTS,
        ("大号", "20cm"),
    ),
)

KIND_KEYS = tuple(kind.key for kind in KINDS)

GROUPS: dict[str, tuple[int, ...]] = {
    group: tuple(i for i, kind in enumerate(KINDS) if kind.group == group)
    for group in (WEAR, KITCHEN, HOME, TECH, BEAUTY, KIDS)
}
