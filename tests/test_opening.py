"""Only regular files are opened, and only inside the root, whatever a name says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bagformer_cli.errors import InputError
from bagformer_cli.opening import (
    is_text,
    open_regular,
    read_regular,
    require_inside,
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
