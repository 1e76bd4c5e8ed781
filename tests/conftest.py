"""Shared by all tests: English messages, a private cache folder, ``../shared``, markers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ["XMR_LANG"] = "en"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes with a thread for each core wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, later
# Tests send signals that a process in the background (Ctrl-C), or of nohup (SIGHUP), ignores.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

TESTS = Path(__file__).resolve().parent
SHARED = TESTS.parents[1] / "shared"
CORE = [TESTS / name for name in ("losses", "interaction", "text", "evaluation/test_metrics.py")]
OFF_BY_DEFAULT = ("slow", "browser", "gpu", "net", "shared")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m core``, skip all files but the core's."""
    # Importing the other test files would take half of the time.
    if config.option.markexpr != "core" or collection_path.suffix != ".py":
        return None
    return None if is_core(collection_path) else True


def is_core(path: Path) -> bool:
    return any(core == path or core in path.parents for core in CORE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of ``CORE`` that run by default as ``core``; skip ``shared`` without data."""
    for item in items:
        off = [name for name in OFF_BY_DEFAULT if item.get_closest_marker(name)]
        if not off and is_core(item.path):
            item.add_marker(pytest.mark.core)
        if "shared" in off and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"{SHARED} does not exist"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Skip a test that needs LanceDB where it is missing, as on a machine lent for its GPU."""
    with _skip_without_lancedb():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, Any, Any]:
    """Skip the tests of a fixture that needs LanceDB where it is missing."""
    with _skip_without_lancedb():
        return (yield)


@contextmanager
def _skip_without_lancedb() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        at: BaseException | None = error
        while at is not None:
            if isinstance(at, ModuleNotFoundError) and at.name == "lancedb":
                pytest.skip("needs lancedb, which is not installed")
            at = at.__cause__ or at.__context__
        raise


@pytest.fixture
def shared() -> Path:
    """``../shared``: reference fixtures and sample data (marker ``shared``)."""
    return SHARED


@pytest.fixture(scope="session")
def qdrant_server() -> Iterator[str]:
    """The address of a Qdrant: of ``QDRANT_URL``, or one with Qdrant's engine for these tests."""
    if given := os.environ.get("QDRANT_URL"):
        yield f"qdrant://{given.partition('://')[2].rstrip('/')}"
        return
    for module in ("qdrant_client", "qdrant_edge"):
        pytest.importorskip(module)
    from tests.support.qdrant_server import serving

    with serving() as address:
        yield address


@pytest.fixture(scope="session", autouse=True)
def _cache_of_shared_fixtures(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Use the same cache folder in fixtures of a module or session."""
    os.environ["XMR_CACHE"] = str(tmp_path_factory.getbasetemp() / "xmr-cache")


@pytest.fixture(autouse=True)
def _private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use an empty cache folder instead of the user's, and no width that a shell exported."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setenv("XMR_CACHE", str(tmp_path_factory.getbasetemp() / "xmr-cache"))


@dataclass(frozen=True)
class Run:
    """Exit code and output of one ``xmr …``."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Parse stdout as one JSON value."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """Parse stdout as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def xmr(capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Run ``xmr`` in this process: ``xmr("bags", title, "--json").json()``."""
    from bagformer_cli.cli.main import main

    def run(*arguments: object) -> Run:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        if code and find_spec("lancedb") is None and "LanceDB is not installed" in err:
            pytest.skip("needs lancedb, which is not installed")
        return Run(code, out, err)

    return run
