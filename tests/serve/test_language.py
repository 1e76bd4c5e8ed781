"""Errors of the service are in the language of each request."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bagformer_cli.errors import InputError
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.messages import in_language, process_language, tr
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.batcher import Batcher
from bagformer_cli.serve.language import preferred
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.settings import ServiceLimits

CHINESE, ENGLISH = "zh-CN,zh;q=0.9,en;q=0.8", "en-GB,en;q=0.9,zh-CN;q=0.5"


def has_chinese(text: str) -> bool:
    return re.search("[\u4e00-\u9fff]", text) is not None


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("*", None),
        ("fr-FR, de", None),
        ("zh", "zh"),
        ("ZH-hant-TW", "zh"),
        ("zho", None),
        (CHINESE, "zh"),
        (ENGLISH, "en"),
        ("en;q=0.2, zh;q=0.3", "zh"),
        ("fr, en ; q=0.2", "en"),
        ("zh;q=0, en;q=0.1", "en"),
        ("zh;q=0", None),
        ("en, zh", "en"),
        ("zh;q=x, en;q=0.1", "en"),
        ("zh;q=, en;q=-1", None),
        (";;,,=;q", None),
        ("zh;q=" + "9" * 400, "zh"),
        ("zh;q=\u0661", None),
    ],
)
def test_a_header_prefers_a_language(accepted: str, expected: str | None) -> None:
    assert preferred(accepted) == expected


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/api/search", {}),
    ("GET", "/api/search", {"q": " "}),
    ("GET", "/api/search", {"q": "裙" * 101}),
    ("GET", "/api/search", {"q": "裙", "where": "nosuch < 3"}),
    ("GET", "/api/search", {"q": "裙", "where": "price <"}),
    ("GET", "/api/search", {"q": "裙", "where": "price = 'x'"}),
    ("GET", "/api/search", {"q": "裙", "sort": "nosuch"}),
    ("GET", "/api/search", {"q": "裙", "k": 0}),
    ("GET", "/api/search", {"q": "裙", "k": 1000}),
    ("GET", "/api/search", {"q": "裙", "k": "x"}),
    ("GET", "/api/search", {"q": "裙", "first": 200}),
    ("GET", "/api/search", {"q": "裙", "thumbnails": "x"}),
    ("GET", "/api/search", {"q": "裙", "where": "x" * 3000}),
    ("POST", "/api/search", {"q": "裙", "weight": "x"}),
    ("POST", "/api/search", {"q": "裙", "weight": 2}),
    ("POST", "/api/search", {"q": "裙", "weight": "nan"}),
    ("POST", "/api/search", {}),
    ("GET", "/api/explain", {"q": "裙", "id": "nosuch"}),
    ("GET", "/api/nosuch", {}),
    ("DELETE", "/api/search", {}),
]


@pytest.mark.parametrize(("method", "path", "asked"), REQUESTS)
def test_an_error_is_in_the_language_of_the_request(
    client: TestClient, method: str, path: str, asked: dict[str, Any]
) -> None:
    def error(accepted: str) -> str:
        answer = client.request(method, path, params=asked, headers={"Accept-Language": accepted})
        assert answer.status_code in (400, 404, 405)
        assert answer.headers["content-language"] == accepted[:2]
        assert answer.headers["vary"] == "Accept-Language"
        return str(answer.json()["error"])

    assert has_chinese(error(CHINESE))
    assert not has_chinese(error(ENGLISH))


@pytest.mark.parametrize(("accepted", "expected"), [(CHINESE, "整数"), (ENGLISH, "a whole number")])
@pytest.mark.parametrize("value", ["x", "1.5", "9" * 5000])
def test_what_a_number_must_be_is_said_in_that_language(
    client: TestClient, value: str, accepted: str, expected: str
) -> None:
    asked = {"q": "裙", "k": value}
    answer = client.get("/api/search", params=asked, headers={"Accept-Language": accepted})
    assert answer.status_code == 400
    assert answer.json()["expected"] == expected


def test_the_service_decides_where_the_request_does_not(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error() -> str:
        asked = {"q": " "}
        answer = client.get("/api/search", params=asked, headers={"Accept-Language": "fr"})
        return str(answer.json()["error"])

    assert not has_chinese(error())
    monkeypatch.setenv("XMR_LANG", "zh")
    process_language.cache_clear()
    try:
        assert has_chinese(error())
    finally:
        monkeypatch.undo()
        process_language.cache_clear()


def test_requests_of_both_languages_at_the_same_time(client: TestClient) -> None:
    def error(request: tuple[str, int]) -> tuple[str, str, int]:
        accepted, number = request
        asked = {"q": "裙", "where": f"nosuch{number % 3} < 3"}
        answer = client.get("/api/search", params=asked, headers={"Accept-Language": accepted})
        return accepted, str(answer.json()["error"]), answer.status_code

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(error, product((CHINESE, ENGLISH), range(24))))
    assert {status for *_, status in answers} == {400}
    assert [has_chinese(text) for _, text, _ in answers] == [
        accepted == CHINESE for accepted, *_ in answers
    ]


def test_requests_that_are_searched_together_have_their_own_errors() -> None:
    begun, go = threading.Event(), threading.Event()

    def fail(queries: Any, options: SearchOptions) -> Any:
        begun.set()
        assert go.wait(20)
        raise InputError(tr("The query is empty."))

    batcher = Batcher(fail, batch=8, waiting=9)
    waiting = []
    for requested in ("en", "zh", "en", "zh", "zh"):  # the first alone, the others together
        with in_language(requested):
            waiting.append(batcher.submit("q", SearchOptions()))
        assert begun.wait(20)
    go.set()
    errors = [str(one.exception(20)) for one in waiting]
    batcher.close()
    assert [has_chinese(text) for text in errors] == [False, True, False, True, True]


def test_refusals_are_in_the_language_of_the_request(shop: Path) -> None:
    limits = ServiceLimits(rate=0.01, upload_bytes=10)
    service = SearchService(Index.open(shop / "index", shop / "runs" / "a" / "best"), limits)
    chinese = {"Accept-Language": CHINESE}
    with TestClient(create_app(service, "secret"), headers=chinese) as client:
        keyless = client.get("/api/bags", params={"q": "裙"})
        client.headers["X-API-Key"] = "secret"
        large = client.post("/metrics", content=b"x" * 11)
        many = client.get("/api/index")
    assert [one.status_code for one in (keyless, large, many)] == [401, 413, 429]
    assert all(has_chinese(one.json()["error"]) for one in (keyless, large, many))


def test_bags_are_named_in_the_language_of_the_request(client: TestClient) -> None:
    def names(accepted: str) -> list[str]:
        asked = {"q": "红色连衣裙 2件装"}
        bags = client.get("/api/bags", params=asked, headers={"Accept-Language": accepted}).json()
        assert [bag["text"] for bag in bags] == ["红色", "连衣裙", "2件装"]
        return [bag["name"] for bag in bags]

    assert all(map(has_chinese, names(CHINESE)))
    assert not any(map(has_chinese, names(ENGLISH)))
