"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bagformer_cli import files, temporary
from bagformer_cli.errors import DiskFullError, InputError
from bagformer_cli.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    disk_errors,
    is_empty,
    new_files,
    recover_folder,
    sha256_of,
    write_text,
)
from bagformer_cli.outputs import check_output, output_file, write_output


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
    assert caught.value.exit_code == 2  # no bug: the user can help
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
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)  # not on Linux
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


def test_the_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "one"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    monkeypatch.setenv("HOME", str(tmp_path / "three"))
    assert cache_folder() == tmp_path / "one"
    monkeypatch.delenv("XMR_CACHE")
    assert cache_folder() == tmp_path / "two/xmr"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "three/.cache/xmr"


def test_a_cache_that_cannot_be_made_is_a_private_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("XMR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file/cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = cache_folder()
    assert found.parent == tmp_path
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert cache_folder() == found
    found.rmdir()
    found.symlink_to("/")  # somebody else was quicker
    assert cache_folder() != found


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


# Temporaries of dead and of living processes.

HOLD = (
    "import sys, time\n"
    "from bagformer_cli.files import atomic_file, atomic_folder\n"
    "maker = atomic_folder if sys.argv[2] == 'folder' else atomic_file\n"
    "with maker(sys.argv[1]) as temporary:\n"
    "    print(temporary, flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture(params=["file", "folder"])
def holder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A process that is writing ``a``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "a"), request.param]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.temporary = Path(process.stdout.readline().strip())  # type: ignore[attr-defined]
    yield process
    process.kill()
    process.communicate()


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(
    holder: Any, tmp_path: Path
) -> None:
    write_text(tmp_path / "b", "b")
    assert holder.temporary.exists()
    holder.kill()
    holder.wait()
    temporary._cleaned.clear()  # as another process would begin
    write_text(tmp_path / "b", "b")
    assert sorted(os.listdir(tmp_path)) == ["b"]


def test_files_that_only_look_temporary_stay(tmp_path: Path) -> None:
    names = [".a.part", ".a.0123abcd.part", "a.0123abcd.xmr.part", ".a.0123abcg.xmr.part"]
    for name in names:
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / ".link.0123abcd.xmr.part")
    write_text(tmp_path / "b", "b")
    assert set(names) < set(os.listdir(tmp_path))


@pytest.mark.parametrize("name", ["x" * 250, "裙" * 83, "x" * 255])
def test_a_long_name_has_a_temporary(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "a")
    assert (tmp_path / name).read_text() == "a"
    with atomic_folder(tmp_path / ("f" + name[1:])) as folder:
        (folder / name).write_text("b")
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("can_exchange", [True, False])
def test_threads_that_replace_one_folder_leave_one_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)

    def replace(number: int) -> None:
        for _ in range(20):
            with atomic_folder(tmp_path / "model") as folder:
                (folder / "one").write_text(str(number))
                (folder / "two").write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(replace, range(4)))
    model = tmp_path / "model"
    assert (model / "one").read_text() == (model / "two").read_text()
    assert os.listdir(tmp_path) == ["model"]


def test_of_several_equal_folders_the_first_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a", keep_existing=True) as slow:
        with atomic_folder(tmp_path / "a", keep_existing=True) as quick:
            (quick / "x").write_text("quick")
        (slow / "x").write_text("slow")
    assert (tmp_path / "a" / "x").read_text() == "quick"
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_inside_a_temporary_folder_can_be_replaced(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a") as outer:
        for text in ("old", "new"):
            with atomic_folder(outer / "b") as inner:
                (inner / "x").write_text(text)
    assert (tmp_path / "a/b/x").read_text() == "new"


def test_a_replacement_killed_between_its_two_renames_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".last.old").mkdir()
    recover_folder(tmp_path / "last")
    assert os.listdir(tmp_path) == ["last"]
    (tmp_path / ".last.old").mkdir()
    recover_folder(tmp_path / "last")
    assert os.listdir(tmp_path) == ["last"]


@pytest.mark.parametrize("exists", [True, False])
def test_the_files_of_a_new_folder_appear_together(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "out"
    if exists:
        out.mkdir()
    with pytest.raises(ZeroDivisionError), new_files(out) as made:
        raise ZeroDivisionError((made / "a").write_text("a"))
    assert out.is_dir() == exists
    with new_files(out) as made:
        (made / "a").write_text("a")
        assert not exists or is_empty(out)
    assert os.listdir(out) == ["a"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    "text",
    [
        "I/O error: No space left on device (os error 28)",
        "Error while serializing: IoError(Os { code: 27 }) File too large (os error 27)",
        "1000 requested and 200 written",
    ],
)
def test_a_full_disk_is_known_by_its_text_too(text: str) -> None:
    with pytest.raises(DiskFullError), disk_errors(Path("a")):
        raise RuntimeError(text)


# Outputs that a user names.


def test_an_output_replaces_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "one").symlink_to("real")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    (tmp_path / "new").symlink_to("not yet")
    write_output(tmp_path / "two", "text")
    write_output(tmp_path / "new", "text")
    assert (tmp_path / "real").read_text() == (tmp_path / "not yet").read_text() == "text"
    assert all((tmp_path / name).is_symlink() for name in ("one", "two", "new"))


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="leads back"):
        write_output(tmp_path / "a", "text")


def test_a_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    write_output(tmp_path / "pipe", "text")
    assert os.read(reader, 100) == b"text"
    os.close(reader)
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (Path("/dev/null"), tmp_path / "null"):
        write_output(path, "text")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_in_a_file_is_written_where_it_stands(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = (
        "import sys\n"
        "from bagformer_cli.outputs import write_output\n"
        "print('before')\n"
        f"write_output({name!r}, 'text\\n')\n"
        "print('after')\n"
    )
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, cwd=tmp_path, check=True)
    assert (tmp_path / "out").read_text() == "before\ntext\nafter\n"


def test_a_folder_and_an_input_are_no_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/in").write_text("precious")
    os.link(tmp_path / "in", tmp_path / "hard")
    (tmp_path / "soft").symlink_to("in")
    for name in (".", "folder", "in", "hard", "soft", "folder/../in"):
        with pytest.raises(InputError), output_file(tmp_path / name, [tmp_path / "in"]):
            pytest.fail("an input would be overwritten")
    with pytest.raises(InputError):
        check_output(tmp_path / "folder/in", [tmp_path / "folder"])
    check_output(tmp_path / "folder/new", [tmp_path / "folder"])
    check_output("/dev/null", ["/dev/null"])
    assert (tmp_path / "in").read_text() == "precious"
