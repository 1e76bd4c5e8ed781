"""A small index that the service searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from bagformer_cli.index.search import Index
from bagformer_cli.serve.app import create_app
from bagformer_cli.serve.service import SearchService
from bagformer_cli.serve.settings import ServiceLimits
from tests.support.small_model import indexed_shop

LIMITS = ServiceLimits(upload_bytes=200_000, seconds=20, title_characters=100)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a catalogue of twelve products and its index."""
    return indexed_shop(tmp_path_factory.mktemp("served"))


@pytest.fixture
def service(shop: Path) -> SearchService:
    return SearchService(Index.open(shop / "index", shop / "runs" / "a" / "best"), LIMITS)


@pytest.fixture
def client(service: SearchService) -> Iterator[TestClient]:
    with TestClient(create_app(service)) as client:
        yield client
