"""The routes of the service: answers, refusals, and nothing that leaves the index."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from bagformer_cli.index.search import Index
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.page import content_policy, page
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.settings import ServiceLimits
from tests.serve.conftest import LIMITS


def test_results_are_those_of_the_index(client: TestClient, service: SearchService) -> None:
    expected = service.index.search("红色碎花裙", k=12)
    answer = client.get("/api/search", params={"q": "红色碎花裙", "k": 5}).json()
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected.hits[:5]]
    assert answer["hits"][0]["score"] == pytest.approx(expected.hits[0].mean)
    assert answer["total"] == 12
    assert "thumbnail" not in answer["hits"][0]
    assert "image" not in answer["hits"][0]  # a path of the server


def test_pages_follow_each_other(client: TestClient) -> None:
    def ids(k: int, first: int) -> list[str]:
        answer = client.get("/api/search", params={"q": "裙", "k": k, "first": first})
        return [hit["id"] for hit in answer.json()["hits"]]

    assert [*ids(5, 0), *ids(5, 5), *ids(5, 10)] == ids(12, 0)


def test_an_image_finds_itself(client: TestClient, shop: Path) -> None:
    data = (shop / "photos/5.png").read_bytes()
    answer = client.post("/api/search", content=data, params={"k": 1, "thumbnails": True}).json()
    assert answer["hits"][0]["id"] == "sku5"
    assert answer["hits"][0]["thumbnail"].startswith("data:image/")


def test_an_image_in_a_form_is_refused_with_the_right_way(client: TestClient, shop: Path) -> None:
    data = (shop / "photos/5.png").read_bytes()
    answer = client.post("/api/search", files={"image": data})
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "The body of the request is a form, not an image.",
        "expected": "the bytes of the image file alone",
        "hint": "curl sends it by --data-binary @photo.jpg.",
    }


def test_filters_sorting_and_facets(client: TestClient) -> None:
    asked = {"q": "裙", "k": 12, "where": "price < 6", "sort": "-price"}
    answer = client.get("/api/search", params=asked).json()
    prices = [hit["attributes"]["price"] for hit in answer["hits"]]
    assert prices == sorted(prices, reverse=True)
    assert max(prices) < 6
    for values in client.get("/api/search", params={"q": "裙"}).json()["facets"].values():
        assert sum(one["count"] for one in values) <= 12


def test_bags_are_the_models(client: TestClient) -> None:
    bags = client.get("/api/bags", params={"q": "红色碎花连衣裙 2件装"}).json()
    assert [bag["text"] for bag in bags] == ["红色", "碎花", "连衣裙", "2件装"]
    assert client.get("/api/bags", params={"q": "  "}).json() == []


def test_an_explanation_adds_up(client: TestClient) -> None:
    found = client.get("/api/explain", params={"q": "红色碎花裙", "id": "sku3"}).json()
    assert sum(part["score"] for part in found["parts"]) == pytest.approx(found["score"], rel=1e-4)
    assert found["thumbnail"].startswith("data:image/")
    assert all(part["map"].startswith("data:image/png") for part in found["parts"])


def big_image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def bomb() -> bytes:
    """A small file of very many pixels."""
    stream = io.BytesIO()
    Image.new("1", (40_000, 30_000)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"q": " "}, "empty"),
        ({"q": "裙" * 101}, "too long"),
        ({"q": "裙", "where": "nosuch < 3"}, "nosuch"),
        ({"q": "裙", "where": "1=1; DROP TABLE products"}, ""),
        ({"q": "裙", "k": 0}, "k"),
        ({"q": "裙", "k": "x"}, "k"),
        ({"q": "裙", "of": "prices"}, "of"),
        ({}, "q"),
    ],
)
def test_a_wrong_question_is_one_error(
    client: TestClient, parameters: dict[str, str], word: str
) -> None:
    answer = client.get("/api/search", params=parameters)
    assert answer.status_code == 400
    assert word in json.dumps(answer.json(), ensure_ascii=False)


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"no image", 400), (big_image(), 413), (bomb(), 400)],
    ids=["empty", "no image", "large", "bomb"],
)
def test_an_upload_that_is_no_small_image_is_refused(
    client: TestClient, content: bytes, status: int
) -> None:
    answer = client.post("/api/search", content=content)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_an_upload_without_a_length_is_counted(client: TestClient) -> None:
    answer = client.post("/api/search", content=iter([b"x" * 150_000] * 2))
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/static/../app.py",
        "/photos/0.png",
        "/docs",
    ],
)
def test_no_file_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "root:" not in answer.text


def test_an_error_names_no_path_of_the_server(client: TestClient, shop: Path) -> None:
    for asked in ({"q": "裙", "where": "nosuch < 3"}, {"q": "裙", "where": "price <"}):
        assert str(shop) not in client.get("/api/search", params=asked).text


def test_html_in_titles_stays_text() -> None:
    script = re.search(r"<script>(.*)</script>", page(), re.DOTALL)
    assert script is not None
    assert "innerHTML" not in script[1]
    assert "outerHTML" not in script[1]
    assert "default-src 'none'" in content_policy()


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.headers["content-security-policy"] == content_policy()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", answer.text)
    assert "http://" not in answer.text.replace("http://www.w3.org", "")


def test_both_languages_have_every_text() -> None:
    script = page().split("<script>")[1]
    english, chinese = script.split("const TEXTS = {")[1].split("\n zh: {")
    keys = [
        set(re.findall(r"[{,]\s*(\w+):", part.split("} };")[0]))
        for part in (english[5:], "{" + chinese)
    ]
    assert keys[0] - {"en"} == keys[1]
    used = set(re.findall(r'data-text="(\w+)"', page())) | set(re.findall(r"\bT\.(\w+)", script))
    assert used <= keys[1]


def test_health_and_readiness(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"ready": True}
    assert "/api/search" in client.get("/openapi.json").json()["paths"]


def test_metrics_count_requests_and_searches(client: TestClient) -> None:
    client.get("/api/search", params={"q": "裙"})
    client.get("/api/search", params={"q": ""})
    text = client.get("/metrics").text
    assert 'xmr_requests_total{route="/api/search",status="200"} 1.0' in text
    assert 'xmr_requests_total{route="/api/search",status="400"} 1.0' in text
    assert "xmr_searches_total 1.0" in text
    assert 'xmr_stage_seconds_total{stage="encode"}' in text


def test_the_log_has_a_line_for_each_request(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "xmr.serve"):
        client.get("/api/search", params={"q": "秘密"})
    line = json.loads(caplog.messages[-1])
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/search", 200)
    assert "秘密" not in caplog.text


def test_a_key_is_needed_where_one_is_set(shop: Path) -> None:
    service = SearchService(Index.open(shop / "index", shop / "runs" / "a" / "best"), LIMITS)
    with TestClient(create_app(service, "secret")) as client:
        assert client.get("/").status_code == 200
        assert client.get("/healthz").status_code == 200
        asked = {"q": "裙"}
        assert client.get("/api/search", params=asked).status_code == 401
        assert client.get("/metrics").status_code == 401
        wrong = client.get("/api/search", params=asked, headers={"X-API-Key": "geheim"})
        assert wrong.status_code == 401
        right = client.get("/api/search", params=asked, headers={"X-API-Key": "secret"})
        assert right.status_code == 200


def test_too_many_requests_are_refused(shop: Path) -> None:
    limits = ServiceLimits(rate=1.0)
    service = SearchService(Index.open(shop / "index", shop / "runs" / "a" / "best"), limits)
    with TestClient(create_app(service)) as client:
        found = [client.get("/api/bags", params={"q": "裙"}) for _ in range(8)]
        assert {one.status_code for one in found[:4]} == {200}
        assert found[-1].status_code == 429
        assert found[-1].headers["retry-after"] == "1"
        assert client.get("/healthz").status_code == 200


def test_a_product_that_is_added_is_found(shop: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shop, tmp_path / "shop")
    index = tmp_path / "shop" / "index"
    service = SearchService(Index.open(index, shop / "runs" / "a" / "best"), LIMITS)
    with TestClient(create_app(service)) as client:
        before = client.get("/api/index").json()["products"]
        Index.open(index, shop / "runs" / "a" / "best").engine.remove(["sku3"])
        assert client.get("/api/index").json()["products"] == before - 1
        answer = client.get("/api/search", params={"q": "裙", "k": 12}).json()
        assert "sku3" not in [hit["id"] for hit in answer["hits"]]


def test_a_service_without_its_packages_names_the_extra(
    shop: Path, xmr: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    run = xmr("serve", "--index", shop / "index")
    assert run.code == 2
    assert "uvicorn" in run.err
    assert "bagformer-cli[serve]" in run.err


def test_words_of_titles_are_searched_for_as_well(client: TestClient, shop: Path, xmr: Any) -> None:
    assert client.get("/api/index").json()["fuses"]
    for fusion in ("rrf", "weighted"):
        asked = {"q": "第3款 连衣裙", "k": 5, "fusion": fusion}
        found = client.get("/api/search", params=asked).json()["hits"]
        same = xmr(
            "search", "第3款 连衣裙", "-k", 5, "--fusion", fusion, "--index", shop / "index",
            "--checkpoint", shop / "runs" / "a" / "best", "--json",
        ).json()["results"][0]["hits"]  # fmt: skip
        assert [hit["id"] for hit in found] == [hit["id"] for hit in same]
        assert {hit["stage"] for hit in found} == {"fused"}
    assert client.get("/api/search", params={"q": "连衣裙", "fusion": "sum"}).status_code == 400
    image = client.post("/api/search?fusion=rrf", content=(shop / "photos" / "0.png").read_bytes())
    assert image.status_code == 400
    assert "words" in image.json()["error"]


def test_an_image_and_a_title_are_searched_for_together(
    client: TestClient, service: SearchService, shop: Path
) -> None:
    photo = shop / "photos" / "5.png"
    for weight in (0.0, 0.3, 1.0):
        asked = {"q": "连衣裙", "weight": weight, "k": 4, "where": "price > 2"}
        found = client.post("/api/search", content=photo.read_bytes(), params=asked).json()
        same = service.index.search("连衣裙", image=photo, weight=weight, k=4, where="price > 2")
        assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in same]
        for hit in found["hits"]:
            parts = (1 - weight) * hit["text_mean"] + weight * hit["image_mean"]
            assert hit["score"] == pytest.approx(parts, abs=1e-5)
            assert hit["stage"] == "combined"


@pytest.mark.parametrize(
    ("parameters", "word"),
    [({"weight": 1.5}, "weight"), ({"weight": "x"}, "weight"), ({"fusion": "rrf"}, "words")],
)
def test_a_wrong_question_with_an_image_is_one_error(
    client: TestClient, shop: Path, parameters: dict[str, Any], word: str
) -> None:
    content = (shop / "photos" / "5.png").read_bytes()
    answer = client.post("/api/search", content=content, params={"q": "裙", **parameters})
    assert answer.status_code == 400
    assert word in answer.json()["error"]


def test_only_the_results_of_a_page_have_their_thumbnails_fetched(
    client: TestClient, service: SearchService, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[int] = []
    kind = type(service.index.engine)
    fetch = kind.fetch

    def counting(engine: Any, keys: Any, columns: Any) -> Any:
        if "thumbnail" in columns:
            fetched.append(len(keys))
        return fetch(engine, keys, columns)

    monkeypatch.setattr(kind, "fetch", counting)
    asked = {"q": "裙", "k": 3, "first": 2, "sort": "-price", "thumbnails": True}
    answer = client.get("/api/search", params=asked).json()
    assert [hit["attributes"]["price"] for hit in answer["hits"]] == [9.5, 8.5, 7.5]
    assert all(hit["thumbnail"].startswith("data:image/") for hit in answer["hits"])
    assert answer["total"] == 12
    assert fetched == [3]


@pytest.mark.parametrize("sort", ["nosuch", "-nosuch", "../../etc/passwd"])
def test_sorting_by_no_attribute_is_an_error(client: TestClient, sort: str) -> None:
    answer = client.get("/api/search", params={"q": "裙", "sort": sort})
    assert answer.status_code == 400
    assert "price" in answer.json()["expected"]


@pytest.mark.parametrize("asked", [{"k": 201}, {"first": 200}, {"first": -1}])
def test_a_page_is_of_the_best_results(client: TestClient, asked: dict[str, int]) -> None:
    assert client.get("/api/search", params={"q": "裙", **asked}).status_code == 400


def test_a_search_by_an_image_has_the_probability_of_its_kind(
    service: SearchService, client: TestClient, shop: Path
) -> None:
    from bagformer_cli.calibration import Calibration, Curve

    service.index.calibration = Calibration("m", {"text_to_image": Curve("platt", slope=1.0)})
    content = (shop / "photos" / "5.png").read_bytes()
    words = client.get("/api/search", params={"q": "裙"}).json()["hits"]
    image = client.post("/api/search", content=content).json()["hits"]
    assert {hit["probability"] for hit in image} == {None}
    assert None not in {hit["probability"] for hit in words}
