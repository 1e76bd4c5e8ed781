"""Inspection of packages, CPU, accelerators, memory and folders."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bagformer_cli import machine

REQUIRES = [
    "numpy>=1.26",
    "numpy>=999",
    "no-such-package-anywhere>=1",
    "lmdb>=1.5; extra == 'lmdb'",
    "winonly>=1; sys_platform == 'a-system-that-is-not'",
]


def test_packages_come_from_the_metadata_with_their_extras(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_distribution_that_is_not_installed_has_no_packages() -> None:
    assert machine.packages("no-such-package-anywhere") == []


@pytest.mark.parametrize(
    ("quota", "cores"),
    [(None, 4), ("max 100000", 4), ("200000 100000", 2), ("150000 100000", 1), ("9 100000", 1)],
)
def test_usable_cores_respect_affinity_and_container_quota(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 5}, raising=False)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert machine.usable_cores() == machine.cpu().cores == cores


def test_memory_respects_the_limit_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    total = machine.memory()
    assert total is not None
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory() == total
    (tmp_path / "memory.max").write_text("1000000\n")
    assert machine.memory() == 1_000_000


def test_compute_reports_version_threads_and_accelerators_of_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cards = [
        SimpleNamespace(name="new", total_memory=80, major=8, minor=0),
        SimpleNamespace(name="old", total_memory=16, major=7, minor=5),
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: cards[i])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    found = machine.compute()
    assert (found.torch, found.threads) == (torch.__version__, 3)
    assert found.devices == (
        machine.Device("new", "cuda", 80, bf16=True),
        machine.Device("old", "cuda", 16, bf16=False),  # before Ampere
    )


def test_free_space_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert machine.free_space(tmp_path / "a" / "b") == pytest.approx(
        machine.free_space(tmp_path), rel=0.05
    )


def test_the_size_of_a_folder_is_that_of_its_files_without_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1234")
    (tmp_path / "y").write_bytes(b"12")
    (tmp_path / "z").symlink_to(tmp_path / "y")
    assert machine.folder_size(tmp_path) == 6
    assert machine.folder_size(tmp_path / "nothing") == 0


def test_the_hub_cache_follows_the_variables_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HOME", raising=False)
    assert machine.hub_cache() == Path("/x/huggingface/hub")
    monkeypatch.setenv("HF_HOME", "/h")
    assert machine.hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert machine.hub_cache() == Path("/c")
