"""Inspect this machine: packages, CPU, accelerators, memory, disk space.

``xmr doctor`` prints it, and benchmarks print it above their figures. Nothing uses the network.
Only :func:`compute` and :func:`choose_device` import torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bagformer_cli.errors import InputError, listed
from bagformer_cli.messages import tr

DISTRIBUTION = "bagformer-cli"
CGROUP = Path("/sys/fs/cgroup")  # limits of a Linux container
CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd")


@dataclass(frozen=True, slots=True)
class Package:
    """A package that this project depends on.

    Attributes:
        name: Its name for ``pip install``.
        wanted: The accepted versions, for example ``>=2.6``.
        installed: The installed version; None if it is not installed.
        extra: The optional extra that needs it; None if it is always needed.
        ok: True if an accepted version is installed.
    """

    name: str
    wanted: str
    installed: str | None
    extra: str | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Cpu:
    """The CPU; ``cores`` counts the cores that this process may use."""

    name: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator; ``memory`` in bytes, 0 if it shares the main memory."""

    name: str
    kind: str
    memory: int
    bf16: bool


@dataclass(frozen=True, slots=True)
class Compute:
    """The hardware that torch uses.

    Attributes:
        torch: Version of torch.
        capability: Instruction set of its CPU kernels, for example ``AVX2``.
        threads: Threads of one CPU operation.
        devices: The accelerators that torch finds.
    """

    torch: str
    capability: str
    threads: int
    devices: tuple[Device, ...]


def packages(distribution: str = DISTRIBUTION) -> list[Package]:
    """List the packages that a distribution requires; empty if it is not installed itself."""
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
                continue  # only required on another Python version or system
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        ok = version is not None and requirement.specifier.contains(version, prereleases=True)
        found.append(Package(requirement.name, str(requirement.specifier), version, extra, ok))
    return found


def cpu() -> Cpu:
    """Inspect the CPU."""
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
    """Count the CPU cores this process may use, within affinity and container limits."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def choose_device(name: str | None) -> str:
    """Check the name of a device; None: a GPU if there is one, else the CPU.

    Raises:
        InputError: torch knows no such device, or this machine has none.
    """
    import torch

    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        return "cuda" if cards else "cpu"
    known = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{i}" for i in range(cards))]
    if torch.backends.mps.is_available():
        known.append("mps")
    if name not in known:
        raise InputError(tr("This machine has no such device."), found=name, expected=listed(known))
    return name


def compute() -> Compute:
    """Inspect the hardware that torch uses."""
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
    """Return the main memory this process may use, in bytes; None if it is unknown."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        limit = (CGROUP / "memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


def free_space(path: Path) -> int:
    """Return the free bytes on the disk of a path, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def folder_size(path: Path) -> int:
    """Return the size of all files under a folder in bytes; 0 if it does not exist."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())


def hub_cache() -> Path:
    """Return the folder of models downloaded from the hub."""
    own = os.environ.get("HF_HUB_CACHE")
    if own:
        return Path(own)
    home = os.environ.get("HF_HOME")
    # As the hub's library: without a home, "~" stays as it is.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    return (Path(home) if home else cache / "huggingface") / "hub"


def python() -> str:
    """Return version and path of the running Python."""
    return f"{platform.python_version()} ({sys.executable})"


def system() -> str:
    """Return operating system and architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"
