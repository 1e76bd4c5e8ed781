"""MUGE's files: both namings, both alphabets of base64, and every way a line can be broken."""

from __future__ import annotations

import base64
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bagformer_cli.data.muge import (
    MugeFolder,
    MugeImageWriter,
    Query,
    iter_images,
    iter_queries,
    write_queries,
)
from bagformer_cli.data.muge_lines import decode_base64
from bagformer_cli.datasets import resolve
from bagformer_cli.errors import DataError, DiskFullError, InputError
from tests.support.datasets import image_line, picture, query_line, write_split


@pytest.mark.parametrize("naming", ["query", "text"])
def test_a_dataset_comes_back_as_it_was_written(tmp_path: Path, naming: str) -> None:
    queries = [(7, "红色 连衣裙", (3, 5)), (8, 'quote " tab \t end', (5,)), (9, "无图", ())]
    images = [(3, b"\x00\xfb\xff"), (5, picture(1)), (6, b"x")]
    folder = write_split(tmp_path, "valid", queries, images, naming)  # type: ignore[arg-type]
    assert (folder.naming, folder.splits) == (naming, ["valid"])
    assert list(iter_queries(folder.queries_path("valid"))) == [Query(*query) for query in queries]
    assert list(iter_images(folder.images_path("valid"))) == images


def test_the_text_naming_uses_its_own_field_names(tmp_path: Path) -> None:
    write_queries(tmp_path / "train_texts.jsonl", [Query(1, "包", (2,))], "text")
    text = (tmp_path / "train_texts.jsonl").read_text(encoding="utf-8")
    assert text == '{"text_id": 1, "text": "包", "image_ids": [2]}\n'


def test_standard_base64_is_written(tmp_path: Path) -> None:
    with MugeImageWriter(tmp_path / "MR_train_imgs.tsv") as writer:
        writer.write(4, b"\xfb\xff\xfe")
    assert (tmp_path / "MR_train_imgs.tsv").read_bytes() == b"4\t+//+\n"


@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_both_alphabets_of_base64_are_read_with_and_without_padding(
    data: bytes, padded: bool
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(data) if padded else encode(data).rstrip(b"=")
        assert decode_base64(text) == data


@pytest.mark.parametrize("payload", [b"", b"a", b"!!!!", b"ab=c", b"YWJj YWJj", b"YQ=\n", b"====="])
def test_what_is_not_base64_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError):
        decode_base64(payload)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"12345\n", "no tab"),
        (b"12 aGFsbG8=\n", "no tab"),
        (b"x\taGFsbG8=\n", "not a whole number"),
        (b"-4\taGFsbG8=\n", "not a whole number"),
        (b"99999999999999999999\taGFsbG8=\n", "not a whole number"),
        (b"4\t*not base64*\n", "not base64"),
        (b"4\taGFsb\n", "not base64"),
        (b"4\t\n", "empty"),
        (image_line(1, b"again"), "twice"),
    ],
)
def test_a_broken_image_line_is_named_with_its_number(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "MR_train_imgs.tsv"
    path.write_bytes(image_line(1, b"one") + image_line(2, b"two") + line + image_line(3, b"three"))
    found = []
    with pytest.raises(DataError, match=message) as caught:
        found.extend(iter_images(path))
    assert caught.value.where == f"{path}:3"
    assert caught.value.exit_code == 2
    assert found == [(1, b"one"), (2, b"two")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json\n", "not JSON"),
        (b'{"query_id": 3, "query_text": "a", "item_ids": [1]\n', "not JSON"),
        (b"[1, 2]\n", "not an object"),
        (b"[" * 100_000 + b"\n", "not JSON"),
        ('{"query_id": 3, "query_text": "包"}'.encode("gb18030") + b"\n", "not UTF-8"),
        (query_line("3", "a", [1]), "'query_id' is not a whole number"),
        (query_line(True, "a", [1]), "'query_id' is not a whole number"),
        (query_line(3.0, "a", [1]), "'query_id' is not a whole number"),
        (query_line(-3, "a", [1]), "'query_id' is not a whole number"),
        (query_line(2**63, "a", [1]), "'query_id' is not a whole number"),
        (query_line(3, "a", ["1"]), "'item_ids' is not a whole number"),
        (query_line(3, "a", [[1]]), "'item_ids' is not a whole number"),
        (query_line(3, "a", 1), "'item_ids' is not a list"),
        (query_line(3, "a", None), "'item_ids' is not a list"),
        (query_line(3, "", [1]), "'query_text' is not a title"),
        (query_line(3, " \t", [1]), "'query_text' is not a title"),
        (query_line(3, None, [1]), "'query_text' is not a title"),
        (b'{"query_id": 3, "query_text": "\\ud800", "item_ids": []}\n', "is not a title"),
        (b'{"query_id": 3, "item_ids": [1]}\n', "'query_text' is missing"),
        (b'{"query_id": 3, "query_text": "a"}\n', "'item_ids' is missing"),
        (b'{"id": 3, "text": "a", "image_ids": []}\n', "'text_id' is missing"),
        (query_line(1, "again", [1]), "twice"),
    ],
)
def test_a_broken_query_line_is_named_with_its_number(
    tmp_path: Path, line: bytes, message: str
) -> None:
    path = tmp_path / "MR_train_queries.jsonl"
    path.write_bytes(query_line(1, "a", [1]) + line + query_line(4, "b", []))
    with pytest.raises(DataError, match=message) as caught:
        list(iter_queries(path))
    assert caught.value.where == f"{path}:2"


def test_a_test_file_may_keep_its_answers_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "MR_test_queries.jsonl"
    path.write_text('{"query_id": 3, "query_text": "a"}\n', encoding="utf-8")
    assert list(iter_queries(path)) == [Query(3, "a", ())]


def test_an_image_named_twice_by_a_query_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "train_texts.jsonl"
    path.write_bytes(query_line(1, "a", [4, 2, 4]))
    assert list(iter_queries(path)) == [Query(1, "a", (4, 2))]


def test_byte_order_mark_carriage_returns_and_blank_lines_are_forgiven(
    tmp_path: Path,
) -> None:
    path = tmp_path / "MR_train_queries.jsonl"
    lines = query_line(1, "a", [1]) + b"\n \n" + query_line(2, "b", [])
    path.write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n") + b"\r\n \n\n")
    assert [query.text for query in iter_queries(path)] == ["a", "b"]


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    path = tmp_path / "MR_train_imgs.tsv"
    path.write_bytes(image_line(1, b"one") + image_line(2, b"two").rstrip())
    assert dict(iter_images(path)) == {1: b"one", 2: b"two"}


def test_a_missing_file_or_folder_is_an_input_error(tmp_path: Path) -> None:
    for use in (
        lambda: list(iter_images(tmp_path / "none.tsv")),
        lambda: list(iter_queries(tmp_path / "none.jsonl")),
        lambda: MugeFolder(tmp_path / "none"),
        lambda: MugeFolder(tmp_path),
    ):
        with pytest.raises(InputError):
            use()


def test_half_a_split_is_named(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "valid")
    write_queries(tmp_path / "MR_train_queries.jsonl", [Query(1, "a", (1,))])
    assert (folder.splits, folder.text_splits) == (["valid"], ["train", "valid"])
    folder.require("train", images=False)
    with pytest.raises(InputError, match=r"MR_train_imgs\.tsv"):
        folder.require("train")


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "MR_train_imgs.tsv"
    path.write_bytes(b"old")

    def fail() -> None:
        with MugeImageWriter(path) as writer:
            writer.write(1, b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """Make the system refuse files beyond a size, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    small_disk(100_000)

    def fill() -> None:
        with MugeImageWriter(tmp_path / "MR_train_imgs.tsv") as writer:
            for number in range(100):
                writer.write(number, bytes(5_000))

    with pytest.raises(DiskFullError, match="full"):
        fill()
    with pytest.raises(DiskFullError):
        write_queries(tmp_path / "q.jsonl", (Query(i, "很长的标题" * 20, ()) for i in range(1000)))
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------- names of datasets


def test_missing_muge_data_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="107332") as caught:
        resolve("muge")
    assert "MR_valid_queries.jsonl + MR_valid_imgs.tsv" in str(caught.value)
    assert "data/muge" in str(caught.value)
    assert caught.value.exit_code == 2


def test_muge_is_found_under_data_and_a_folder_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "data" / "muge", "valid")
    assert resolve("muge").path == Path("data/muge")
    write_split(tmp_path / "muge", "train")
    assert resolve("muge").path == Path("muge")


def test_a_misspelt_dataset_is_corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="Did you mean muge"):
        resolve("mugee")


@pytest.mark.shared
def test_the_real_sample_is_read(shared: Path) -> None:
    folder = MugeFolder(shared / "data" / "muge_sample")
    queries = list(iter_queries(folder.queries_path("valid")))
    assert queries[0] == Query(248816, "圣诞 抱枕", (286314, 141999, 183846))
    images = dict(iter_images(folder.images_path("valid")))
    assert len(images) == 8
    assert all(data.startswith(b"\xff\xd8\xff") for data in images.values())
