"""F7, F15: users without a name or home, folders that cannot be written, outputs on a mount."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.black_box import Ended, assert_no_bug, case_folder, process, program
from tests.support.small_model import TINY, set_options

SETS = set_options(*TINY, "training.batch_size=8")

# F7: containers. A user with a number only, who may read everything and write almost nothing.
NOBODY = [
    "setpriv", "--reuid=12345", "--regid=12345", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search",
]  # fmt: skip

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may write, outside of pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="xmr-public-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def as_nobody(
    folder: Path, arguments: list[object], env: dict[str, str | None], timeout: float = 240
) -> Ended:
    """Run ``xmr`` as a user without a name, in a folder."""
    clean: dict[str, str | None] = {
        "XMR_CACHE": None, "XDG_CACHE_HOME": None, "HOME": None, "NUMBA_CACHE_DIR": None,
        "USER": None, "LOGNAME": None, "TORCHINDUCTOR_CACHE_DIR": None, "TMPDIR": None,
        "HF_HOME": None, "TORCH_HOME": None, "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    return process(command=[*NOBODY, *program(*arguments)], cwd=folder, env={**clean, **env},
                   timeout=timeout)  # fmt: skip


PLACES: dict[str, dict[str, str | None]] = {
    "no HOME": {},
    "HOME=/": {"HOME": "/"},
    "HOME is not there": {"HOME": "/nowhere/home"},
    "HOME is read-only": {"HOME": "/usr"},
    "a read-only cache": {"XMR_CACHE": "READONLY"},
    "a cache that cannot be made": {"XMR_CACHE": "/proc/xmr"},
}


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["doctor", "bags", "score", "index build"])
def test_f07_a_user_without_a_name_or_home_works(
    model: Path, public: Path, command: str, place: str
) -> None:
    (public / "readonly").mkdir(mode=0o555)
    env = {name: (str(public / "readonly") if value == "READONLY" else value)
           for name, value in PLACES[place].items()}  # fmt: skip
    case_folder("", public)
    shutil.copytree(model, public / "model")
    (public / "t.csv").write_text("id,image,title\na0,p0.jpg,红裙\n")
    arguments: list[object] = {
        "doctor": ["doctor"],
        "bags": ["bags", "红裙"],
        "score": ["score", "p0.jpg", "红裙", "--checkpoint", "model"],
        "index build": ["index", "build", "t.csv", "i", "--checkpoint", "model"],
    }[command]  # type: ignore[assignment]
    ended = as_nobody(public, arguments, env)
    assert_no_bug(ended)
    assert ended.code == 0, ended.err
    if "cache" in ended.err.lower():
        assert "XMR_CACHE" in ended.err  # a remark names the setting


@needs_root
@pytest.mark.slow
def test_f07_many_titles_need_no_folder_for_compiled_code(public: Path) -> None:
    """Neither the package, nor HOME, nor the working directory can be written."""
    (public / "t.txt").write_text("红色连衣裙 2件装\n" * 6000)
    (public / "cache").mkdir()
    (public / "cache").chmod(0o777)
    (public / "work").mkdir(mode=0o555)
    arguments = ["bags", "--input", public / "t.txt", "--output", public / "b.jsonl"]
    env: dict[str, str | None] = {"XMR_CACHE": str(public / "cache"), "HOME": "/"}
    ended = as_nobody(public / "work", [*arguments, "--workers", 1], env)
    assert_no_bug(ended)
    assert ended.code == 0, ended.err
    assert (public / "b.jsonl").read_text().count("\n") == 6000


@needs_root
@pytest.mark.slow
def test_f07_what_cannot_be_written_names_the_setting(public: Path) -> None:
    """Where a cache is needed (``bench``'s catalogue), the refusal names ``XMR_CACHE``."""
    ended = as_nobody(public, ["bench", "search", "--items", 100], {"HOME": "/"})
    assert_no_bug(ended)
    assert ended.code == 0 or "XMR_CACHE" in ended.err


# F15: an output folder that is a mount.
@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
@pytest.mark.parametrize("command", ["data import", "encode", "index build", "data demo", "train"])
def test_f15_an_output_folder_may_be_a_mount(
    xmr: Callable[..., Any], model: Path, home: Path, small_disk: Path, command: str
) -> None:
    run = {
        "data import": lambda: xmr("data", "import", "t.csv", "--out", small_disk),
        "encode": lambda: xmr("encode", "t.csv", "--out", small_disk, "--checkpoint", model),
        "index build": lambda: xmr("index", "build", "t.csv", small_disk, "--checkpoint", model),
        "data demo": lambda: xmr("data", "demo", "--out", small_disk, "--images", 60),
        "train": lambda: xmr("train", "--config", "demo", "--dataset", "set", "--output-dir",
                             small_disk, *SETS, "--set", "training.max_steps=1"),
    }[command]()  # fmt: skip
    assert_no_bug(run)
    assert run.code == 0, run.err
    assert list(small_disk.iterdir())
    assert {p.name for p in small_disk.parent.iterdir()} <= {"home", "disk", "shop"}
