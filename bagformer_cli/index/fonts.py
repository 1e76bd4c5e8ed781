"""A font of this machine that has Chinese characters, if there is one. None is shipped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

ENDINGS = {".ttf", ".ttc", ".otf", ".otc"}
FAMILIES = (
    "notosanscjk", "notosanssc", "notosanshans", "sourcehansans", "pingfang", "msyh",
    "microsoftyahei", "hiraginosansgb", "wqy", "wenquanyi", "stheiti", "heiti", "deng", "simhei",
    "droidsansfallback", "simsun", "songti", "notoserifcjk", "notoserifsc", "sourcehanserif",
    "simkai", "fangsong", "uming", "ukai", "arialuni", "unifont",
)  # fmt: skip
"""What Chinese fonts are called, as far as their file's name says so; the best for labels first."""
CHARACTERS = "红连衣裙"


@cache
def chinese_font() -> Path | None:
    """The file of the first font that draws Chinese, or None."""
    known = []
    for file in font_files():
        name = "".join(c for c in file.stem.casefold() if c.isalnum())
        rank = next((n for n, family in enumerate(FAMILIES) if name.startswith(family)), None)
        if rank is not None:
            plain = not any(word in name for word in ("bold", "black", "light", "thin", "bd"))
            known.append((rank, not plain, str(file)))
    return next((Path(file) for _, _, file in sorted(known) if draws(Path(file))), None)


def draws(file: Path, characters: str = CHARACTERS) -> bool:
    """Whether a font has these characters: they look unlike one that no font has."""
    try:
        font = ImageFont.truetype(str(file), 24)
        nothing = bytes(font.getmask("\U0010fffd"))
        return all(bytes(font.getmask(one)) not in (nothing, b"") for one in characters)
    except (OSError, ValueError):
        return False


def font_files() -> Iterator[Path]:
    """All font files in the places where this system keeps them."""
    for folder in font_folders():
        for place, _, names in os.walk(folder):
            for name in sorted(names):
                if Path(name).suffix.lower() in ENDINGS:
                    yield Path(place) / name


def font_folders() -> list[Path]:
    """Where fonts are: the user's first, then the system's."""
    home = Path.home()
    if sys.platform == "win32":
        own = os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")
        system = os.environ.get("WINDIR", r"C:\Windows")
        return [Path(own) / "Microsoft" / "Windows" / "Fonts", Path(system) / "Fonts"]
    if sys.platform == "darwin":
        return [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts"),
                Path("/System/Library/AssetsV2")]  # fmt: skip
    data = os.environ.get("XDG_DATA_HOME") or home / ".local/share"
    shared = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    return [Path(data) / "fonts", home / ".fonts", *(Path(one) / "fonts" for one in shared if one)]
