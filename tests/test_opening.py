"""Only regular files are opened, and only inside the root, whatever a name says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest

from bagformer_cli.errors import InputError
from bagformer_cli.opening import (
    is_text,
    load_array,
    open_regular,
    read_regular,
    require_inside,
    require_plain_folder,
    require_text,
    shown,
)


def test_a_regular_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a.txt")
    assert read_regular(tmp_path / "link", 3) == b"abc"
    with open_regular(tmp_path / "a.txt") as stream:
        assert stream.readline() == b"abc"


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device", "socket"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "evil.jpg"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="not a regular file") as caught:
        read_regular(path, 10)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("name", ["gone.jpg", ".", "a\0b", "\ud83d.jpg", "loop", "n" * 300, "a/b"])
def test_a_name_that_leads_nowhere_is_an_input_error_that_can_be_printed(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError) as caught:
        read_regular(f"{tmp_path}/{name}", 10)
    str(caught.value).encode()


def test_a_file_over_the_limit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(3_000_000))
    with pytest.raises(InputError, match=r"3 MB.*at most 2 MB"):
        read_regular(tmp_path / "big", 2_000_000)


@pytest.mark.parametrize("name", ["../secret/s.jpg", "link.jpg", "folder/s.jpg", "/etc/passwd"])
def test_nothing_leads_out_of_a_root(tmp_path: Path, name: str) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    (root / "in").mkdir(parents=True)
    secret.mkdir()
    (secret / "s.jpg").write_bytes(b"")
    (root / "link.jpg").symlink_to(secret / "s.jpg")
    (root / "folder").symlink_to(secret)
    (root / "own").symlink_to("in")
    with pytest.raises(InputError, match="--root"):
        require_inside(root / name, root)
    for inside in ("a.jpg", "in/../a.jpg", "own/a.jpg", "..a.jpg"):
        require_inside(root / inside, root)
    (tmp_path / "other").symlink_to(root)
    require_inside(tmp_path / "other/a.jpg", root)  # the root itself may be reached by a link


def test_names_are_shown_as_text() -> None:
    gbk = os.fsdecode("红裙".encode("gbk"))
    assert shown("红裙.jpg") == "红裙.jpg"
    shown(gbk).encode()
    assert len(shown("data:image/png;base64," + "A" * 100_000)) < 1000
    shown("\ud83d").encode()
    assert not is_text(gbk)
    require_text("红裙")
    with pytest.raises(InputError, match="not UTF-8"):
        require_text(gbk)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    "array",
    [np.arange(6).reshape(2, 3), np.zeros((0, 4), np.float16), np.asfortranarray(np.eye(3)),
     np.float32(3)],
    ids=["numbers", "empty", "fortran", "scalar"],
)  # fmt: skip
def test_an_array_is_read_or_mapped(tmp_path: Path, array: np.ndarray, mapped: bool) -> None:
    np.save(tmp_path / "a.npy", array)
    found = load_array(tmp_path / "a.npy", mapped=mapped)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


def test_a_mapped_array_that_can_be_written_does_not_change_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    load_array(tmp_path / "a.npy", mapped=True, writable=True)[0] = 1
    assert not load_array(tmp_path / "a.npy").any()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"(3,)", b"(9,)"), (b"(3,)", b"(-3"), (b"(3,)", b"(3,("), (b"<f8", b"<zz"), (b"<f8", b"|O8"),
     (b"NUMPY", b"PK\3\4!"), (b"'descr'", b"'other'"), (b"\x01\x00", b"\x09\x00")],
    ids=str,
)  # fmt: skip
def test_an_array_that_lies_is_a_value_error(
    tmp_path: Path, old: bytes, new: bytes, mapped: bool
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError):  # noqa: PT011 - of numpy's or our own
        load_array(path, mapped=mapped)


def test_an_array_longer_than_its_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(3))
    path.write_bytes(
        path.read_bytes().replace(b"(3,), }" + b" " * 11, b"(3" + b"0" * 11 + b",), }")
    )
    with pytest.raises(ValueError, match="bytes are not"):
        load_array(path)


@pytest.mark.parametrize("kind", ["link", "fifo", "dangling"])
def test_a_plain_folder_holds_only_files_and_folders(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    require_plain_folder(tmp_path)
    require_plain_folder(tmp_path / "missing")
    if kind == "fifo":
        os.mkfifo(tmp_path / "a/b/odd")
    else:
        (tmp_path / "a/b/odd").symlink_to(tmp_path / ("a" if kind == "link" else "gone"))
    with pytest.raises(InputError, match="only files and folders") as caught:
        require_plain_folder(tmp_path)
    assert caught.value.where == str(tmp_path / "a/b/odd")
