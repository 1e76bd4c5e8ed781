"""What the machine is said to have."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import pytest

from bagformer_cli import machine

REQUIRES = [
    "numpy>=1.26",
    "numpy>=999",
    "no-such-package-anywhere>=1",
    "lmdb>=1.5; extra == 'lmdb'",
    "winonly>=1; sys_platform == 'a-system-that-is-not'",
]


def test_packages_are_those_the_metadata_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class About:
        def get_all(self, name: str) -> list[str]:
            assert name == "Provides-Extra"
            return ["lmdb", "dev"]

    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "metadata", lambda name: About())
    found = {f"{p.name}{p.wanted}": p for p in machine.packages("ours")}
    assert list(found) == ["numpy>=1.26", "numpy>=999", "no-such-package-anywhere>=1", "lmdb>=1.5"]
    assert found["numpy>=1.26"].ok
    assert not found["numpy>=999"].ok
    assert found["numpy>=999"].installed == found["numpy>=1.26"].installed
    assert found["no-such-package-anywhere>=1"].installed is None
    assert found["numpy>=1.26"].extra is None
    assert found["lmdb>=1.5"].extra == "lmdb"


def test_a_project_that_is_not_installed_has_no_packages() -> None:
    assert machine.packages("no-such-package-anywhere") == []


def test_the_cores_are_those_this_process_may_use() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
    assert machine.cpu().cores == machine.usable_cores()


def test_torch_computes_somewhere() -> None:
    found = machine.compute()
    assert found.threads >= 1
    assert found.torch


def test_space_is_measured_where_a_folder_will_be(tmp_path: Path) -> None:
    assert machine.free_space(tmp_path / "a" / "b") == pytest.approx(
        machine.free_space(tmp_path), rel=0.05
    )


def test_a_folder_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1234")
    (tmp_path / "y").write_bytes(b"12")
    (tmp_path / "z").symlink_to(tmp_path / "y")
    assert machine.folder_size(tmp_path) == 6
    assert machine.folder_size(tmp_path / "nothing") == 0


def test_the_hub_cache_is_where_the_hub_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    assert machine.hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert machine.hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert machine.hub_cache() == Path("/c")
