"""The page in a real browser: search, filter, explain, both languages, no accessibility faults."""

from __future__ import annotations

import csv
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from bagformer_cli.index.search import Index
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.run import listen
from bagformer_cli.serve.service import SearchService
from tests.serve.conftest import LIMITS
from tests.support.small_model import write_table

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium")


@contextmanager
def serving(index: Path, shop: Path) -> Iterator[str]:
    """Serve an index on a thread of this process."""
    service = SearchService(Index.open(index, shop / "runs" / "a" / "best"), LIMITS)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(shop: Path) -> Iterator[str]:
    with serving(shop / "index", shop) as address:
        yield address


@pytest.fixture(scope="module")
def many(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve an index of thirty products, more than a page holds."""
    from bagformer_cli.cli.main import main

    folder = tmp_path_factory.mktemp("many")
    table, model = str(write_table(folder, 30)), str(shop / "runs" / "a" / "best")
    assert main(["index", "build", table, str(folder / "index"), "--checkpoint", model]) == 0
    with serving(folder / "index", shop) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright import sync_api

    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(locale="en-GB", viewport={"width": 1100, "height": 800})
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
    page.goto(address)
    yield page
    context.close()
    assert not faults


def is_fault(line: Any) -> bool:
    """Say whether a line of the console is a fault; refused requests are shown by the page."""
    return line.type == "error" and "the server responded with a status of 400" not in line.text


def search(page: Any, query: str) -> None:
    page.fill("#query", query)
    page.press("#query", "Enter")
    page.wait_for_selector("#grid li")


def test_a_query_shows_its_bags_and_products(page: Any) -> None:
    search(page, "红色碎花连衣裙")
    page.wait_for_selector("#bags .bag")
    assert page.locator("#bags .bag").all_inner_texts() == ["红色", "碎花", "连衣裙"]
    assert page.locator("#grid li").count() == 12
    assert "q=" in page.url
    page.reload()
    page.wait_for_selector("#grid li")
    assert page.input_value("#query") == "红色碎花连衣裙"


def test_a_filter_and_its_error_are_shown(page: Any) -> None:
    search(page, "裙")
    page.fill("#where", "price < 3")
    page.press("#where", "Enter")
    page.wait_for_selector("#grid:not(:has(li:nth-child(12)))")
    page.fill("#where", "nosuch < 3")
    page.press("#where", "Tab")
    page.wait_for_selector("#error:has-text('nosuch')")
    for shown in ("#grid li", "#facets button", "#next", "#previous"):  # of the search before
        assert page.locator(shown).locator("visible=true").count() == 0, shown
    assert page.inner_text("#status") + page.inner_text("#place") == ""
    page.fill("#where", "price < 3")
    page.press("#where", "Tab")
    page.wait_for_selector("#grid li")
    assert page.inner_text("#error") == ""


def test_a_page_that_fails_can_be_left_and_changes_no_numbers(browser: Any, many: str) -> None:
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(many)
    search(page, "裙")
    assert page.inner_text("#place") == "1–24 of 30"
    page.route("**first=24**", lambda route: route.abort())
    page.click("#next")
    page.wait_for_selector("#error:not(:empty)")
    assert page.locator("#grid li").count() == 0
    page.click("#previous")
    page.wait_for_selector("#grid li")
    assert page.inner_text("#place") == "1–24 of 30"
    context.close()


def test_a_click_explains(page: Any) -> None:
    search(page, "红色裙")
    page.locator("#grid .image").first.click()
    page.wait_for_selector("dialog[open] .map")
    shown, total = page.inner_text("#sum").split(" = ")
    parts = [float(part) for part in shown.split(" + ")]
    score, mean = (float(part) for part in total.split(", mean "))
    assert sum(parts) == pytest.approx(score, abs=0.01)
    assert mean == pytest.approx(score / len(parts), abs=0.01)
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0


def test_an_image_is_searched_by(page: Any, shop: Path) -> None:
    page.set_input_files("#file", shop / "photos/5.png")
    page.wait_for_selector("#grid li")
    assert "sku5" in page.locator("#grid li").first.inner_text()
    assert page.inner_text("#status").startswith("5.png: ")


def test_an_image_and_words_are_searched_for_together(page: Any, shop: Path) -> None:
    page.set_input_files("#file", shop / "photos/5.png")
    page.wait_for_selector("#grid li")
    assert not page.locator("#share").is_visible()
    with page.expect_response(lambda answer: "weight=0.5" in answer.url) as first:
        search(page, "连衣裙")
    assert first.value.ok
    assert page.locator("#share").is_visible()
    with page.expect_response(lambda answer: "weight=1" in answer.url):
        page.locator("#weight").press("End")
    page.wait_for_selector("#grid li:first-child:has-text('sku5')")
    assert page.inner_text("#status").startswith("连衣裙 + 5.png: the best 12 results")
    shown = page.locator("#grid li").first.inner_text()
    assert float(shown.split("image ")[1].split()[0]) == pytest.approx(
        1, abs=0.01
    )  # stored as int8
    page.locator("#grid .image").first.click()
    page.wait_for_selector("dialog[open] .map")
    assert "words" in page.inner_text("#why")
    page.keyboard.press("Escape")
    with page.expect_response(lambda answer: answer.request.method == "GET"):
        page.click("#clear")
    assert not page.locator("#share").is_visible()
    assert page.input_value("#query") == "连衣裙"
    page.wait_for_selector("#status:has-text('连衣裙: ')")
    page.click("#language")
    assert page.inner_text("#status").startswith("连衣裙：最相关的 12 个结果")


HOSTILE = [
    '<img src=x onerror="window.harmed=1">',
    '"><script>window.harmed=1</script>',
    "'><svg/onload=window.harmed=1>",
    "</script><style>*{display:none}</style>",
    "\u202egpj.exe 连衣裙",
    "裙" * 400,
]


@pytest.fixture(scope="module")
def hostile(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a catalogue of which titles, ids and attributes are made to harm the page."""
    from bagformer_cli.cli.main import main

    table, index = shop / "hostile.csv", tmp_path_factory.mktemp("hostile") / "index"
    with table.open("w", encoding="utf-8", newline="") as stream:
        rows = [
            [f"{n}{text[:40]}", f"photos/{n}.png", text, text[:60]]
            for n, text in enumerate(HOSTILE)
        ]
        csv.writer(stream).writerows([["id", "image", "title", "category"], *rows])
    model = str(shop / "runs" / "a" / "best")
    assert main(["index", "build", str(table), str(index), "--checkpoint", model]) == 0
    with serving(index, shop) as address:
        yield address


def test_titles_that_are_made_to_harm_are_shown_as_text(browser: Any, hostile: str) -> None:
    context = browser.new_context(locale="en-GB", viewport={"width": 390, "height": 800})
    page = context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(hostile)
    search(page, "裙")
    shown = page.locator("#grid li p").all_inner_texts()
    assert sorted(shown) == sorted(HOSTILE)
    page.locator("#grid .image").first.click()
    page.wait_for_selector("dialog[open] .map")
    assert page.evaluate("window.harmed") is None
    assert page.locator("#grid svg, #grid script, #grid style, [onerror]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all(url.startswith((hostile, "data:")) for url in requests)
    context.close()


def search_refused(page: Any) -> None:
    page.fill("#query", "红色裙")
    page.press("#query", "Enter")
    page.wait_for_selector("#error:not(:empty)")


def test_chinese_and_narrow(browser: Any, address: str) -> None:
    context = browser.new_context(
        locale="zh-CN", viewport={"width": 360, "height": 700}, color_scheme="dark"
    )
    page = context.new_page()
    page.goto(address)
    search(page, "裙")
    assert page.inner_text("button.main") == "搜索"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#language")
    assert page.inner_text("button.main") == "Search"
    context.close()


def test_an_error_is_in_the_language_of_the_page(page: Any) -> None:
    page.fill("#where", "nosuch < 3")
    search_refused(page)
    assert page.inner_text("#error").startswith("The index has no")
    page.click("#language")
    page.wait_for_selector("#error:has-text('索引')")
    assert "nosuch" in page.inner_text("#error")
    page.wait_for_selector("#bags .bag[title='颜色']")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(browser: Any, address: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    context = browser.new_context(locale="zh-CN", color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(address)
    search(page, "红色裙")
    page.wait_for_selector("#bags .bag")
    found = axe.run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
    context.close()


def test_a_query_that_is_typed_while_the_page_loads_stays(page: Any) -> None:
    def late(route: Any) -> None:
        page.fill("#query", "红色连衣裙")
        route.continue_()

    page.route("**/api/index", late)
    page.goto(page.url.partition("?")[0])
    page.wait_for_selector("#about:not(:empty)")
    assert page.input_value("#query") == "红色连衣裙"
    page.press("#query", "Enter")
    page.wait_for_selector("#grid li")
