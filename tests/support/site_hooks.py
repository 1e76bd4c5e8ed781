"""Hook of mkdocs: the pages of the repository become those of the site.

On a code host, a page links to its neighbours as files: ``bags.zh.md``, ``../SECURITY.md``,
``../configs/demo.yaml``. :func:`on_config` copies all pages to ``build/site-pages``, where

- a link to ``NAME.zh.md`` is one to ``NAME.md``, which the i18n plugin resolves by language;
- every linked ``.md`` outside of ``docs/`` is a page below ``repository/``;
- a page that has no Chinese twin is its own, with links to the headings of Chinese pages;
- a link to any other file outside of ``docs/`` is its text.

::

    docs/bags.zh.md               [安全](../SECURITY.zh.md)        [微调](training.zh.md)
    build/site-pages/bags.zh.md   [安全](repository/SECURITY.md)   [微调](training.md)
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from tests.support.twins import anchor_of, headings, twin_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs"
OUTSIDE = "repository"
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def on_config(config: Any, **_: Any) -> Any:
    """Write the pages to a folder next to the site's and let mkdocs read them there."""
    site = Path(config["site_dir"])
    pages = site.with_name(f"{site.name}-pages")
    write_pages(pages)
    config["docs_dir"] = str(pages)
    return config


def write_pages(folder: Path) -> None:
    """Write all pages, images and styles of the site to a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ROOT / DOCS, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.md")
    )
    for path, text in documents().items():
        place = folder / place_of(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(rewritten(text, path), "utf-8")
        if not path.endswith(".zh.md") and not twin_of(ROOT / path).exists():
            place.with_suffix(".zh.md").write_text(rewritten(text, path, of_twins=True), "utf-8")


def documents() -> dict[str, str]:
    """Return the text of every page by its path: those of ``docs/``, and what they link to."""
    waiting = [page.relative_to(ROOT).as_posix() for page in (ROOT / DOCS).rglob("*.md")]
    texts: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        if path in texts or not (ROOT / path).is_file():
            continue
        texts[path] = (ROOT / path).read_text("utf-8")
        linked = [_linked(target, path) for _, target in LINK.findall(FENCE.sub("", texts[path]))]
        waiting += [one for one in linked if one and one.endswith(".md")]
    return texts


def place_of(path: str) -> str:
    """Return where a file of the repository lies on the site."""
    inside = path.startswith(f"{DOCS}/")
    place = path.removeprefix(f"{DOCS}/") if inside else f"{OUTSIDE}/{path}"
    # A README would become the index of its section of the navigation.
    return re.sub(r"/README(?=(\.zh)?\.md$)", "", place)


def rewritten(text: str, path: str, *, of_twins: bool = False) -> str:
    """Rewrite the links of a page for the site.

    Args:
        text: The page.
        path: Its file, from the root of the repository.
        of_twins: Whether links to headings of English pages lead to those of their Chinese twins.
    """
    here = posixpath.dirname(place_of(path)) or "."

    def link(found: re.Match[str]) -> str:
        label, target = found["text"], found["target"]
        linked = _linked(target, path)
        if linked is None:
            return found[0]
        if not linked.endswith(".md") and not linked.startswith(f"{DOCS}/"):
            return label
        place = re.sub(r"\.zh\.md$", ".md", place_of(linked))
        anchor = target.partition("#")[2]
        if anchor and of_twins:
            anchor = _anchor_of_twin(ROOT / linked, anchor)
        return f"[{label}]({posixpath.relpath(place, here)}{anchor and '#' + anchor})"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


def _anchor_of_twin(page: Path, anchor: str) -> str:
    """Return the anchor of the same heading in a page's Chinese twin.

    An anchor that the page does not have, or of a page without a twin, is returned as it is.
    """
    twin = twin_of(page)
    anchors = [anchor_of(heading) for heading in headings(page)]
    if not twin.exists() or anchor not in anchors:
        return anchor
    return anchor_of(headings(twin)[anchors.index(anchor)])


def _linked(target: str, path: str) -> str | None:
    """Return the path, from the root, of a linked file; None for an address or an anchor."""
    name = target.partition("#")[0]
    if not name or re.match(r"[a-z]+:", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
