"""Find an installed font that has all characters of a text."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

Font = ImageFont.FreeTypeFont

_FOLDERS = (
    "~/.fonts", "~/.local/share/fonts", "/usr/share/fonts", "/usr/local/share/fonts",
    "/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts",
)  # fmt: skip
_CHINESE = (
    "notosanscjk", "notosanssc", "sourcehansans", "pingfang", "msyh", "wqy", "droidsansfallback",
    "hiragino", "heiti", "simhei", "notoserifcjk", "sourcehanserif", "simsun", "uming", "ukai",
)  # fmt: skip
_MISSING = "\U0010fffe"  # no font has this character: it is drawn as the missing glyph


def font_for(text: str, size: int) -> Font:
    """Return a font that has all characters of a text.

    Args:
        text: Line breaks and blanks do not count.
        size: Height in pixels.

    Raises:
        InputError: No installed font has them.
    """
    wanted = {character for character in text if not character.isspace()}
    lacking = wanted
    for font in _candidates(size):
        missing = {character for character in wanted if not _has(font, character)}
        if not missing:
            return font
        lacking = min(lacking, missing, key=len)
    raise InputError(
        tr("No installed font has all characters of this text."),
        found="".join(sorted(lacking)[:10]),
        hint=tr(
            "Write an HTML page instead of a PNG image, or install a font with Chinese characters: "
            "{command}",
            command="apt install fonts-noto-cjk",
        ),
    )


def _candidates(size: int) -> Iterator[Font]:
    """Yield the font that Pillow contains, then installed fonts with Chinese characters."""
    own = ImageFont.load_default(size)
    if isinstance(own, Font):
        yield own
    for file in chinese_font_files():
        try:
            yield ImageFont.truetype(str(file), size)
        except OSError:
            continue


@cache
def chinese_font_files() -> tuple[Path, ...]:
    """List the files of installed fonts with Chinese characters, as fontconfig or names tell."""
    try:
        listed = subprocess.run(
            ["fc-list", "--format", "%{file}\n", ":lang=zh"],
            capture_output=True, text=True, timeout=20, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        listed = []
    known = [Path(line) for line in listed] or [
        file
        for folder in _FOLDERS
        for file in Path(folder).expanduser().rglob("*.[to]t[fc]")
        if _rank(file) < len(_CHINESE)
    ]
    return tuple(sorted(known, key=lambda file: (_rank(file), file.name)))


def _rank(file: Path) -> int:
    """Return the place of a font in ``_CHINESE``; thin and heavy weights count as unknown."""
    name = file.name.lower().replace("-", "").replace("_", "")
    if any(weight in name for weight in ("thin", "light", "black", "bold")):
        return len(_CHINESE)
    return next((i for i, part in enumerate(_CHINESE) if part in name), len(_CHINESE))


def _has(font: Font, character: str) -> bool:
    """Say whether a font draws a character other than as the missing glyph."""
    glyph, missing = font.getmask(character), font.getmask(_MISSING)
    return glyph.size != missing.size or bytes(glyph) != bytes(missing)
