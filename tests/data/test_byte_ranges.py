"""Byte ranges: every line once, whatever the ranges; digests; one error for what is not UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data import byte_ranges as module
from bagformer_cli.data.byte_ranges import (
    ByteRange,
    byte_ranges,
    decode_line,
    digests_and_numbers,
    line_number,
)
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


@given(LINES, st.integers(1, 40))
def test_ranges_know_the_numbers_of_their_first_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    path.write_bytes(b"\n".join(lines))
    ranges = byte_ranges(path, size)
    for part, (digest, number) in zip(ranges, digests_and_numbers(ranges), strict=True):
        assert digest == part.digest()
        for line in part.lines():
            assert number == line_number(path, line.begin)
            break


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6),
        max_size=9,
    ),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]),
    st.sampled_from(["\n", "\r"]),
)
def test_lines_of_every_encoding_are_those_of_the_decoded_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], encoding: str, end: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file"
    text = end.join(["", *lines])
    path.write_bytes(text.encode(encoding))
    newline = end.encode(encoding)
    found = list(ByteRange(path, newline=newline).lines())
    expected = [part + end for part in text.split(end)]
    expected[-1] = expected[-1].removesuffix(end)  # the last line has no end
    assert [line.raw.decode(encoding) for line in found] == [line for line in expected if line]
    for line in found:
        assert next(ByteRange(path, line.begin, newline=newline).lines()) == line


@pytest.mark.parametrize("newline", [b"\n", b"\n\0"])
def test_a_line_that_is_too_long_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newline: bytes
) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 5_000_000)
    path = tmp_path / "file"
    path.write_bytes(b"ab" + newline + b"x" * 12_000_000 + newline + b"cd" + newline)
    first, long, last = ByteRange(path, newline=newline).lines()
    assert (first.content.rstrip(b"\0\n"), last.raw) == (b"ab", b"cd" + newline)
    assert long.end - long.begin == 12_000_000 + len(newline)
    assert len(long.raw) < 10_000
    with pytest.raises(DataError, match="too long"):
        _ = long.content
    if newline == b"\n":
        ranges = byte_ranges(path, 1_000_000)
        assert [line for part in ranges for line in part.lines()] == [first, long, last]


def test_a_range_in_which_no_line_begins_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each range of a long line would read on to its end, which is quadratic."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5_000 + b"\nab\n")
    lines = [list(part.lines()) for part in byte_ranges(path, 1_000)]
    assert [len(part) for part in lines] == [1, 0, 0, 0, 0, 1]
    monkeypatch.setattr(module, "_lf_lines", None)
    assert list(ByteRange(path, 1_000, 2_000).lines()) == []


def test_many_blank_lines_are_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\n" * 300_000 + b"x\n" + b"\n" * 300_000)
    assert sum(1 for _ in ByteRange(path).lines(skip_blank_end=True)) == 300_001


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
