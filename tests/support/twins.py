"""Compare an English page with its Chinese twin: ``docs/NAME.md`` and ``docs/NAME.zh.md``.

Pages are compared section by section, a section being the text below one heading::

    ## Disk              ## 磁盘                level of the heading
    | 7 | 20 kills |     | 7 | 20 次 kill |     rows of tables, numbers of every row
    `-k f14` takes 2 s   `-k f14` 用 2 秒       code between backticks, numbers of the other text
    [a](b.md#c-d)        [甲](b.zh.md#丙丁)     targets of links: the same page, the same heading
    ```bash …```         ```bash …```           blocks of code, without their comments

"3 million" and "300 万" are the same number. Write numbers that are words in one language as words
in the other (two, 两), and digits as digits.

See what differs: ``python -m tests.support.twins bags methods``.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)
NUMBER = re.compile(r"(\d(?:[\d,]*\d)?(?:\.\d+)?)(?:\s*(thousand|million|billion|万|亿))?")
OUTSIDE = ("README.md", "SECURITY.md", "entity_dicts/README.md")
GENERATED = {"commands", "configuration"}  # both languages, by `make docs`
UNITS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "万": 1e4, "亿": 1e8}
COMMENT = re.compile(r"(?:^|\s+)(?:#|<!--).*$", re.MULTILINE)


@dataclass
class Section:
    """What has to be the same below a heading.

    Attributes:
        heading: Its text; "" before the first one.
        level: 1 to 6; 0 before the first heading.
    """

    heading: str = ""
    level: int = 0
    blocks: list[str] = field(default_factory=list)
    rows: list[Counter[float]] = field(default_factory=list)
    numbers: Counter[float] = field(default_factory=Counter)
    code: set[str] = field(default_factory=set)
    links: Counter[str] = field(default_factory=Counter)


def twin_of(page: Path) -> Path:
    """Return the path of a page's Chinese twin."""
    is_front = page == DOCS.parent / "README.md"  # code hosts know its twin by this name
    return page.with_suffix(".zh-CN.md" if is_front else ".zh.md")


def english_pages() -> list[Path]:
    """List the English pages: those of ``docs/``, and others that have a twin."""
    pages = sorted(page for page in DOCS.rglob("*.md") if not page.name.endswith(".zh.md"))
    return [*pages, *(DOCS.parent / name for name in OUTSIDE)]


def name_of(page: Path) -> str:
    """Return the short name of a page: ``bags``, ``papers/aladin``, ``../SECURITY``."""
    inside = page.is_relative_to(DOCS)
    name = page.relative_to(DOCS) if inside else Path("..") / page.relative_to(DOCS.parent)
    return name.as_posix().removesuffix(".md")


def differences(page: Path, twin: Path) -> Iterator[str]:
    """Name what a page and its twin do not have in common, most basic first."""
    ours, theirs = sections(page), sections(twin)
    for one, other in zip(ours, theirs, strict=False):
        if one.level != other.level:
            levels = f"level {one.level}, in Chinese {other.level}"
            yield f"heading {one.heading!r} ({levels}: {other.heading!r})"
            return
        yield from (f"{one.heading!r}: {text}" for text in _in_section(one, other))
    if len(ours) != len(theirs):
        yield f"{len(ours)} headings in English, {len(theirs)} in Chinese"


def _in_section(one: Section, other: Section) -> Iterator[str]:
    yield from _of_blocks(one.blocks, other.blocks)
    if len(one.rows) != len(other.rows):
        yield f"{len(one.rows)} table rows in English, {len(other.rows)} in Chinese"
    else:
        for place, (row, twin) in enumerate(zip(one.rows, other.rows, strict=True)):
            if row != twin:
                yield f"table row {place + 1}: {_sides(row, twin)}"
    for name, ours, theirs in (
        ("numbers", one.numbers, other.numbers),
        ("code", Counter(one.code), Counter(other.code)),
        ("links", one.links, other.links),
    ):
        if ours != theirs:
            yield f"{name}: {_sides(ours, theirs)}"


def _of_blocks(ours: Sequence[str], theirs: Sequence[str]) -> Iterator[str]:
    if len(ours) != len(theirs):
        yield f"{len(ours)} blocks of code in English, {len(theirs)} in Chinese"
        return
    for one, other in zip(ours, theirs, strict=True):
        if one != other:
            lines = zip(one.splitlines(), other.splitlines(), strict=False)
            first = next(((a, b) for a, b in lines if a != b), ("another length", ""))
            yield f"block of code: {first[0]!r} is {first[1]!r}"


def _sides(ours: Counter[str] | Counter[float], theirs: Counter[str] | Counter[float]) -> str:
    def listed(some: Counter[str] | Counter[float]) -> str:
        return ", ".join(f"{one:g}" if isinstance(one, float) else one for one in some.elements())

    missing, added = ours - theirs, theirs - ours  # type: ignore[operator]
    return f"only in English: {listed(missing) or '–'}; only in Chinese: {listed(added) or '–'}"


@cache
def sections(page: Path) -> tuple[Section, ...]:
    """Read the sections of a page."""
    found = [Section()]
    for part, block in _parts(page.read_text("utf-8")):
        if block:
            found[-1].blocks.append(part)
            continue
        for heading, text in _by_heading(part):
            if heading is not None:
                marks, _, title = heading.partition(" ")
                found.append(Section(title.strip(), len(marks)))
            _read(text, found[-1], page)
    return tuple(found)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield text and blocks of code in turn; blocks without comments, True for a block."""
    end = 0
    for fence in FENCE.finditer(text):
        yield text[end : fence.start()], False
        lines = COMMENT.sub("", fence[3]).splitlines()
        yield "\n".join([fence[2], *(line.rstrip() for line in lines if line.strip())]), True
        end = fence.end()
    yield text[end:], False


def _by_heading(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield headings with the text below; None for text before the first one."""
    parts = re.split(r"^(#{1,6} .*)$", text, flags=re.MULTILINE)
    yield None, parts[0]
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _read(text: str, section: Section, page: Path) -> None:
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    prose = []
    for line in text.splitlines():
        if line.startswith("|"):
            if not re.fullmatch(r"[|\s:-]+", line) or "---" not in line:
                section.rows.append(_numbers(line))
        else:
            prose.append(line)
    section.numbers += _numbers("\n".join(prose))
    section.code |= {re.sub(r"\s+", " ", code) for code in CODE.findall(text)}
    section.links += Counter(_target(link, page) for link in LINK.findall(CODE.sub("", text)))


def _numbers(text: str) -> Counter[float]:
    text = re.sub(r"\]\([^)\s]+\)", "]", CODE.sub(" ", text))
    return Counter(
        round(float(digits.replace(",", "")) * UNITS.get(unit, 1), 6)
        for digits, unit in NUMBER.findall(text)
    )


def _target(link: str, page: Path) -> str:
    """Return a link without language: file, and number of the heading that it leads to."""
    if re.match(r"[a-z]+:", link):
        return link
    name, _, anchor = link.partition("#")
    file = (page.parent / name).resolve() if name else page
    plain = re.sub(r"\.zh(-CN)?\.md$", ".md", file.as_posix().removeprefix(f"{DOCS.parent}/"))
    if not anchor:
        return plain
    anchors = [anchor_of(h) for h in headings(file)] if file.is_file() else []
    return f"{plain}#{anchors.index(anchor) if anchor in anchors else anchor}"


@cache
def headings(page: Path) -> tuple[str, ...]:
    """List the headings of a page."""
    text = "".join(part for part, block in _parts(page.read_text("utf-8")) if not block)
    return tuple(re.findall(r"^#{1,6} (.*)$", text, re.MULTILINE))


def anchor_of(heading: str) -> str:
    """Return the anchor of a heading, as code hosts and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


if __name__ == "__main__":
    for english in english_pages():
        name = name_of(english)
        wanted = name in sys.argv if len(sys.argv) > 1 else name not in GENERATED
        if wanted and twin_of(english).exists():
            for difference in differences(english, twin_of(english)):
                print(f"{name}: {difference}")
