"""Byte ranges: every line once, whatever the ranges; digests; one error for what is not UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data.byte_ranges import ByteRange, byte_ranges, decode_line, line_number
from bagformer_cli.errors import DataError, InputError

LINES = st.lists(st.binary(max_size=9).map(lambda raw: raw.replace(b"\n", b"")), max_size=12)


@given(LINES, st.integers(1, 40), st.booleans())
def test_ranges_of_a_file_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, skip: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"\n".join(lines))
    whole = list(ByteRange(path).lines(skip_blank_end=skip))
    ranges = byte_ranges(path, size)
    assert [line for part in ranges for line in part.lines(skip_blank_end=skip)] == whole
    content = path.read_bytes()
    for line in whole:
        mark = b"" if line.begin else b"\xef\xbb\xbf"
        assert content[line.begin : line.end].removeprefix(mark) == line.raw
        assert line.begin == 0 or content[line.begin - 1 : line.begin] == b"\n"
        assert line_number(path, line.begin) == content.count(b"\n", 0, line.begin) + 1


@given(LINES)
def test_only_blank_lines_at_the_end_are_skipped(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"\n".join(lines))
    expected = list(ByteRange(path).lines())
    while expected and not expected[-1].raw.strip():
        expected.pop()
    assert list(ByteRange(path).lines(skip_blank_end=True)) == expected


def test_line_ends_and_a_byte_order_mark_are_no_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo")
    lines = list(ByteRange(path).lines())
    assert [line.content for line in lines] == [b"one", b"", b"two"]
    assert [line.raw for line in lines] == [b"one\r\n", b"\n", b"two"]
    assert [(line.begin, line.end) for line in lines] == [(0, 8), (8, 9), (9, 12)]


def test_a_digest_changes_only_with_the_bytes_of_its_range(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc\nde\nfghijk\nlmnop")
    before = [part.digest() for part in byte_ranges(path, 8)]
    path.write_bytes(b"abc\nde\nfghijk\nLmnop")
    after = [part.digest() for part in byte_ranges(path, 8)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True]


def test_an_empty_file_has_no_ranges(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert byte_ranges(tmp_path / "file", 8) == []


@pytest.mark.parametrize("name", ["none", "."])
def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        list(ByteRange(tmp_path / name).lines())


def test_a_line_that_is_not_utf_8_is_named_with_byte_and_position() -> None:
    with pytest.raises(DataError, match="not UTF-8") as caught:
        decode_line(b"ab\xff\xfe", "file:3")
    assert (caught.value.where, caught.value.found) == ("file:3", "byte FF at position 3")
    assert "UTF-8" in str(caught.value.hint)
    assert decode_line("包".encode("gb18030"), encoding="gb18030") == "包"
