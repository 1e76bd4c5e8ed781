"""The site is built without a warning, in both languages, and needs no other host to be read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support import site_hooks
from tests.support.site_docstrings import for_markdown
from tests.support.twins import DOCS, anchor_of, english_pages, headings

ROOT = DOCS.parent
PAGES = [page for page in english_pages() if page != ROOT / "README.md"]  # for code hosts


class _Loaded(HTMLParser):
    """Collects the addresses that a page loads by itself: no links that a reader clicks."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag == "link" and known.get("rel") in {"canonical", "alternate", "prev", "next"}:
            return
        name = {"script": "src", "img": "src", "link": "href", "iframe": "src"}.get(tag)
        if name and known.get(name):
            self.addresses.append(known[name] or "")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_is_whole(tmp_path: Path) -> None:
    """One test, because building takes 20 seconds."""
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _check_that_every_page_is_there(site)
    _check_that_pages_load_nothing_from_other_hosts(site)
    _check_that_chinese_texts_are_cut_into_words(site)


def _check_that_every_page_is_there(site: Path) -> None:
    for language in ("", "zh/"):
        for page in PAGES:
            place = site_hooks.place_of(page.relative_to(ROOT).as_posix())
            assert (site / f"{language}{place.replace('.md', '.html')}").is_file(), place


def _check_that_pages_load_nothing_from_other_hosts(site: Path) -> None:
    for page in site.rglob("*.html"):
        parser = _Loaded()
        parser.feed(page.read_text("utf-8"))
        assert not [a for a in parser.addresses if re.match(r"(https?:)?//", a)], page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:", style.read_text("utf-8")), style.name


def _check_that_chinese_texts_are_cut_into_words(site: Path) -> None:
    """The search index has a zero-width space between two words."""
    index = json.loads((site / "search/search_index.json").read_text("utf-8"))
    chinese = "".join(one["text"] for one in index["docs"] if one["location"].startswith("zh/"))
    assert "\u200b词典\u200b" in chinese


def test_every_page_is_in_the_navigation_and_has_a_chinese_title() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    titles = {p: t for t, p in re.findall(r"^ +- ([^:\n]+): (\S+\.md)$", text, re.MULTILINE)}
    titles["papers/index.md"] = "Papers"
    chinese = re.findall(r"^ {12}([^:\n]+): .*[一-鿿]", text, re.MULTILINE)
    for page in PAGES:
        place = site_hooks.place_of(page.relative_to(ROOT).as_posix())
        assert place in titles, f"{place}: add it to nav in mkdocs.yml"
        is_name = place.startswith("papers/")  # papers are called by their names
        assert is_name or titles[place] in chinese, f"{titles[place]}: add it to nav_translations"


def test_links_are_those_of_the_site() -> None:
    text = """\
[a](training.zh.md#起点) [b](../SECURITY.md) [c](../configs/demo.yaml) [d](https://x.org/a.md)
[e](#f)

```bash
[a](training.zh.md)
```
"""
    assert site_hooks.rewritten(text, "docs/bags.zh.md") == (
        "[a](training.md#起点) [b](repository/SECURITY.md) c [d](https://x.org/a.md)\n[e](#f)\n\n"
        "```bash\n[a](training.zh.md)\n```\n"
    )
    assert site_hooks.rewritten("[a](../bags.md)", "docs/papers/aladin.md") == "[a](../bags.md)"
    outside = site_hooks.rewritten("[a](docs/bags.md) [b](data/README.md)", "SECURITY.md")
    assert outside == "[a](../bags.md) [b](data.md)"


def test_links_of_a_page_without_a_twin_lead_to_chinese_headings() -> None:
    text = "[a](docs/scores.md#calibrate) [b](docs/log.md#a) [c](docs/scores.md)"
    assert site_hooks.rewritten(text, "CHANGELOG.md", of_twins=True) == (
        "[a](../scores.md#校准) [b](../log.md#a) [c](../scores.md)"
    )


def test_every_linked_heading_is_there_in_both_languages(tmp_path: Path) -> None:
    """A quick form of what building the site checks."""
    site_hooks.write_pages(tmp_path)
    for page in tmp_path.rglob("*.md"):
        suffix = ".zh.md" if page.name.endswith(".zh.md") else ".md"
        text = site_hooks.FENCE.sub("", page.read_text("utf-8"))
        for _, target in site_hooks.LINK.findall(text):
            name, _, anchor = target.partition("#")
            if anchor and not re.match("[a-z]+:", target):
                linked = (page.parent / name).with_suffix(suffix) if name else page
                known = [anchor_of(heading) for heading in headings(linked)]
                assert anchor in known, f"{page.relative_to(tmp_path)}: {target}"


def test_docstrings_are_shown_as_markdown() -> None:
    text = "Call :func:`~a.load`.\n\n>>> 1\n1\n>>> 2\n2\n\nSo::\n\n    code"
    assert for_markdown(text) == (
        "Call `a.load`.\n\nExamples:\n    >>> 1\n    1\n    >>> 2\n    2\n\nSo:\n\n    code"
    )
