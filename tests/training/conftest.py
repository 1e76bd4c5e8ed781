"""The small dataset of the tests that train every built-in architecture, shrunk."""

from __future__ import annotations

import pytest

from bagformer_cli.data.store.store import Store
from tests.support.small_architectures import small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Sixteen pairs for every configuration, with the bags of the demo's title encoder."""
    made = small_store(tmp_path_factory.mktemp("set"))
    return Store(made.path, dataset=made.dataset)  # without the encoder's name, which is checked
