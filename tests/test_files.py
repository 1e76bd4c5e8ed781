"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bagformer_cli.errors import DiskFullError
from bagformer_cli.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    disk_errors,
    sha256_of,
    write_text,
)


def _leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "红色连衣裙\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "红色连衣裙\n".encode()
    assert not _leftovers(tmp_path / "a")


def test_a_failure_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic_file(path) as temporary:
        raise ZeroDivisionError(temporary.write_text("half of the new"))
    assert path.read_text() == "old"
    assert not _leftovers(tmp_path)


def test_a_reader_sees_the_old_content_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    program = (
        "import os, signal, sys\n"
        "from bagformer_cli.files import atomic_file\n"
        "with atomic_file(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half of the new')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    assert path.read_text() == "old"


def test_a_full_disk_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError) as caught:
        write_text(path, "new")
    assert caught.value.where == str(path)
    assert caught.value.exit_code == 2
    assert path.read_text() == "old"
    assert not _leftovers(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_that_is_full_is_a_full_disk() -> None:
    with pytest.raises(DiskFullError), disk_errors(Path("/dev/full")):
        Path("/dev/full").write_text("no room")


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_text()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "stale.txt").write_text("old")
    with atomic_folder(path) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "new.txt").write_text("new")
        assert (path / "stale.txt").exists()
    assert [p.relative_to(path).as_posix() for p in sorted(path.rglob("*"))] == [
        "deep",
        "deep/new.txt",
    ]
    assert not _leftovers(tmp_path)


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(path) as temporary:
        raise ZeroDivisionError((temporary / "new.txt").write_text("half"))
    assert [p.name for p in path.iterdir()] == ["old.txt"]
    assert not _leftovers(tmp_path)


def test_a_swap_that_fails_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old")
    replace = os.replace

    def fail_the_second(source: Path, target: Path) -> None:
        if str(source).endswith(".part") and Path(target) == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_the_second)
    with pytest.raises(OSError, match="Input/output"), atomic_folder(path) as temporary:
        (temporary / "new.txt").write_text("new")
    assert [p.name for p in path.iterdir()] == ["old.txt"]
    assert not _leftovers(tmp_path)


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "a")
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o750


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XMR_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("XMR_CACHE")
    assert cache_folder() == Path("/two/xmr")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "xmr"


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
