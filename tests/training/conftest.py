"""The small dataset of the tests that train every built-in architecture, shrunk."""

from __future__ import annotations

import pytest

from bagformer_cli.data.store.store import Store
from tests.support.small_architectures import small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("set"))
