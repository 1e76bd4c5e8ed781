"""What every test shares: English messages, a private cache folder, and ``../shared``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Run:
    """How one ``xmr …`` ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def xmr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run ``xmr`` in this process: ``xmr("bags", title, "--json").json()``."""
    from bagformer_cli.cli.main import main

    def run(*arguments: object) -> Run:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Run(code, out, err)

    return run
