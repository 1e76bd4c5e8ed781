"""What this machine has: packages, processors, devices, memory, folders.

``xmr doctor`` shows it, and a benchmark writes it above its figures. Nothing is asked of the
network. torch is imported when devices are asked for.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "bagformer-cli"
CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd")


@dataclass(frozen=True, slots=True)
class Package:
    """One package this project uses.

    Attributes:
        name: As on the command line of ``pip install``.
        wanted: The version range, for example ``>=2.6``.
        installed: The version that is here, None where there is none.
        extra: The extra that brings it; None where it is always needed.
        ok: Whether it is here in a version that is wanted.
    """

    name: str
    wanted: str
    installed: str | None
    extra: str | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor: ``cores`` is how many of them this process may use."""

    name: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator; ``memory`` in bytes, 0 where it shares the machine's."""

    name: str
    kind: str
    memory: int
    bf16: bool


@dataclass(frozen=True, slots=True)
class Compute:
    """What torch computes with.

    Attributes:
        torch: Its version.
        capability: The instruction set of its CPU kernels, for example ``AVX2``.
        threads: How many threads one operation uses.
        devices: The accelerators it can use.
    """

    torch: str
    capability: str
    threads: int
    devices: tuple[Device, ...]


def packages(distribution: str = DISTRIBUTION) -> list[Package]:
    """The packages that ``distribution`` asks for, by its own metadata; empty if not installed."""
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        requirement = Requirement(line)
        extra = None
        if requirement.marker is not None:
            names = metadata.metadata(distribution).get_all("Provides-Extra") or []
            extra = next((n for n in names if requirement.marker.evaluate({"extra": n})), None)
            if extra is None and not requirement.marker.evaluate({"extra": ""}):
                continue  # for another Python or another system
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        ok = version is not None and requirement.specifier.contains(version, prereleases=True)
        found.append(Package(requirement.name, str(requirement.specifier), version, extra, ok))
    return found


def cpu() -> Cpu:
    """The processor of this machine."""
    name, flags = platform.processor(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key in {"flags", "Features"}:
                flags.update(value.split())
    features = tuple(flag for flag in CPU_FEATURES if flag in flags)
    return Cpu(name or platform.machine(), usable_cores(), features)


def usable_cores() -> int:
    """How many cores this process may use: affinity and container limits counted."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def compute() -> Compute:
    """What torch can compute with here; imports torch."""
    import torch

    devices = []
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            bf16 = (about.major, about.minor) >= (8, 0)
            devices.append(Device(about.name, "cuda", about.total_memory, bf16))
    if torch.backends.mps.is_available():
        devices.append(Device(platform.processor() or "Apple GPU", "mps", 0, bf16=True))
    capability = torch.backends.cpu.get_cpu_capability()
    return Compute(torch.__version__, capability, torch.get_num_threads(), tuple(devices))


def memory() -> int | None:
    """Bytes of main memory this process may use; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


def free_space(path: Path) -> int:
    """Bytes free where ``path`` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def folder_size(path: Path) -> int:
    """Bytes that the files under ``path`` take; 0 where there is no such folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())


def hub_cache() -> Path:
    """Where models from the hub are kept: ``$HF_HUB_CACHE``, ``$HF_HOME/hub``, or the default."""
    own = os.environ.get("HF_HUB_CACHE")
    if own:
        return Path(own)
    home = os.environ.get("HF_HOME")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(home) if home else cache / "huggingface") / "hub"


def python() -> str:
    """Version and place of the running Python."""
    return f"{platform.python_version()} ({sys.executable})"


def system() -> str:
    """Operating system and architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"
