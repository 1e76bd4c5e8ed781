"""Make ``builtin_vocab.txt``, the WordPiece vocabulary that ships with the project.

It serves models trained from scratch (the demo's): every GB2312 character, ASCII, the
punctuation of both widths, digits by ones, twos and threes, and latin pieces that titles use.

    python -m bagformer_cli.text.tools.make_vocab
"""

from __future__ import annotations

import string
from pathlib import Path

from bagformer_cli.files import write_text

WORDS = """
app apple audi baby bag band bear beach beauty best big bike black blue body book boot box boy
brand brown bmw bus buy cable cake camera car card care case cat cc cd ce chic christmas class
classic clean clear co coat code coffee color cool cotton cover cream cross cup cute dc design
dha diy dj dog door double dr dream dress drink dry dvd easy edge edition eva eu extra eye face
family fan fashion fila film fit flash flex food foot for free fresh fruit full fun fur game gel
gift girl glass go gold golf good gray green gps hair hand happy hat hd head health heart hello
high hip home honda hot house huawei ice id in intel ins iphone ipad ipod jeep jeans jp kids king
kit kitty knit korea la lace lady lamp laptop large leather led lego lens light line linen lip
logo long look lot love low lucky lv mac magic man max mask match men metal mi micro mid milk
mini mix mm mobile model modern mom moon mp new nike no nova oem office oil old on one only open
oppo orange original outdoor over oversize oxford pack paint pants paper party pc pe pearl pen
pet phone photo pink plus polo pop power premium print pro ps pu pvc queen ram red retro rgb
rice ring robot rom rose run school sea sexy shirt shoe shop short show silk silver size ski skin
sky slim small smart soft sony spa spf sport ssd star steel store street style summer sun super
sweet table tea team tee the time tiny top touch tour toy tpu tv type uk ultra up ups us usb
usa uv vans vc vintage vip vivo voice walk wall wash watch water wax white wifi winter with woman
women wood wool work world xiaomi xl xs xxl xxxl year yellow yoga you young zip zoo
"""
"""Latin words of titles, each also a piece inside a longer word."""

ENDINGS = """
able age al an ance ar ation co ed el en er ers es est et ette ful ge ia ian ic ie ies ing ion
ish ism ist ite ity ive land le less let ll ly man mate me ment nt ness ng nn ol on or os ous
ra re ri ro rs ry sh ss st te ter th tion to ton tte ty um ure us va ve ville wear zz
"""
"""Pieces that only end or continue words."""

UNITS = "cm mm km kg mg ml kw kwh mah gb tb mb hz ghz khz db dpi rpm psi nm lb oz ft inch pcs set"

PUNCTUATION = (
    "、。〈〉《》「」『』【】〔〕〖〗〜·—…‘’“”‰′″※→←↑↓★☆●○◆◇■□▲△▼▽♀♂♥♡♪✨✓✔"
    "×÷±°℃№™®©€£¥￥§②③①④⑤⑥⑦⑧⑨⑩Ⅰ"
)

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def ideographs() -> list[str]:
    """Return the 6,763 characters of GB2312 in its order (the 3,755 common ones first)."""
    rows = range(0xB0, 0xF8)
    both = (bytes((row, cell)) for row in rows for cell in range(0xA1, 0xFF))
    return [character for code in both if (character := code.decode("gb2312", "ignore"))]


def vocabulary() -> list[str]:
    """Return all entries in order, each once."""
    ones = string.digits + string.ascii_lowercase
    numbers = [f"{n:02d}" for n in range(100)] + [str(n) for n in range(100, 1000, 10)]
    years = [str(year) for year in range(2010, 2036)]
    latin = [*WORDS.split(), *UNITS.split()]
    wide = [chr(code) for code in range(0xFF01, 0xFF5F) if not chr(code).isupper()]
    entries = [
        *SPECIALS,
        *string.punctuation,
        *PUNCTUATION.lower(),
        *wide,
        *ideographs(),
        *ones,
        *(f"##{one}" for one in ones),
        *numbers,
        *(f"##{number}" for number in numbers),
        *years,
        *latin,
        *(f"##{piece}" for piece in (*latin, *ENDINGS.split())),
    ]
    return list(dict.fromkeys(entries))


def main() -> None:
    """Write the file into the ``text`` package."""
    path = Path(__file__).parents[1] / "builtin_vocab.txt"
    write_text(path, "".join(f"{entry}\n" for entry in vocabulary()))


if __name__ == "__main__":
    main()
