"""What every test shares: English messages, a private cache folder, and ``../shared``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["XMR_LANG"] = "en"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not SHARED.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason=f"{SHARED} is not here"))


@pytest.fixture
def shared() -> Path:
    """``../shared``: reference fixtures and sample data (marker ``shared``)."""
    return SHARED


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep tests out of the user's cache folder."""
    monkeypatch.setenv("XMR_CACHE", str(tmp_path_factory.getbasetemp() / "xmr-cache"))
