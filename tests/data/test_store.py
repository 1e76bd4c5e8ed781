"""The store: random access, resumption after a kill, and noticing what changed."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store import convert, tokens
from bagformer_cli.data.store import preprocess as stages
from bagformer_cli.data.store.arrays import GrowingArray
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.store import Store, default_store
from bagformer_cli.errors import DataError, DiskFullError, InputError
from tests.support.character_encoder import QUERIES, Characters, killed_run
from tests.support.datasets import image_line, picture, write_split
from tests.support.ordinary_user import permissions_count
from tests.support.remarks import Remarks


def times(folder: Path, pattern: str = "*.arrow") -> dict[str, int]:
    """When each shard was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob(pattern)}


def test_everything_comes_back(dataset: MugeFolder) -> None:
    made = preprocess(dataset, encoder=Characters())
    assert made.path == dataset.path / ".xmr"
    assert made.splits == ["train", "valid"]
    split = made.split("train")
    np.testing.assert_array_equal(split.image_ids, [20, 40, 10, 30])
    assert [split.image_bytes(i) for i in range(4)] == [picture(n) for n in (20, 40, 10, 30)]
    np.testing.assert_array_equal(split.query_ids, [7, 5, 9, 1])
    assert list(split.texts) == [text for _, text, _ in QUERIES]
    assert (split.texts[2], split.texts[-1], split.texts[1:3]) == (
        "童鞋 男",
        "帽子",
        ["包", "童鞋 男"],
    )
    np.testing.assert_array_equal(split.item_offsets, [0, 2, 2, 3, 4])
    np.testing.assert_array_equal(split.items, [3, 2, 0, 2])
    expected = Characters()(list(split.texts))
    for name in ("ids", "token_offsets", "bag_starts", "bag_ends", "bag_offsets"):
        np.testing.assert_array_equal(getattr(split.tokens, name), getattr(expected, name))
    assert len(set(split.image_hash.tolist())) == 4
    with pytest.raises(IndexError):
        split.image_bytes(4)


def test_the_text_naming_gives_the_same_store(tmp_path: Path, dataset: MugeFolder) -> None:
    images = [(number, picture(number)) for number in (20, 40, 10, 30)]
    other = write_split(tmp_path / "other", "train", QUERIES, images, "text")
    one = preprocess(dataset, encoder=None).split("train")
    two = preprocess(other, encoder=None).split("train")
    np.testing.assert_array_equal(one.items, two.items)
    np.testing.assert_array_equal(one.image_hash, two.image_hash)
    assert list(one.texts) == list(two.texts)


def test_equal_images_have_equal_hashes(tmp_path: Path) -> None:
    images = [(1, picture(1)), (2, picture(2)), (3, picture(1))]
    folder = write_split(tmp_path, "train", [(1, "a", (1,))], images)
    one, two, three = preprocess(folder, encoder=None).split("train").image_hash
    assert one == three != two


def test_other_tools_read_the_shards(dataset: MugeFolder) -> None:
    preprocess(dataset, encoder=Characters())
    table = pa.ipc.open_file(dataset.path / ".xmr" / "train" / "images-00000.arrow").read_all()
    assert table.column_names == ["image_id", "hash", "image"]
    assert table.num_rows == 4
    ids = np.load(dataset.path / ".xmr" / "train" / "tokens-characters" / "ids.npy")
    assert ids.dtype == np.int32


def test_a_split_goes_to_another_process(dataset: MugeFolder) -> None:
    split = preprocess(dataset, encoder=Characters()).split("train")
    copy = pickle.loads(pickle.dumps(split))
    assert copy.image_bytes(2) == split.image_bytes(2)
    np.testing.assert_array_equal(copy.tokens.ids, split.tokens.ids)


@pytest.mark.usefixtures("many_shards")
def test_many_shards_hold_what_one_holds(tmp_path: Path) -> None:
    numbers = [int(n) for n in np.random.default_rng(0).permutation(40)]
    images = [(n, picture(n, (20 + n, 20))) for n in numbers]
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], images)
    made = preprocess(folder, encoder=None, workers=2)
    assert len(list((made.path / "train").glob("images-*.arrow"))) > 5
    split = made.split("train")
    np.testing.assert_array_equal(split.image_ids, numbers)
    assert all(split.image_bytes(i) == data for i, (_, data) in enumerate(images))


# ------------------------------------------------------------------------- what is made again


def test_nothing_is_made_again_where_nothing_changed(dataset: MugeFolder) -> None:
    preprocess(dataset, encoder=Characters())
    before = times(dataset.path / ".xmr")
    encoder = Characters()
    made = preprocess(dataset, encoder=encoder)
    assert encoder.seen == []
    assert times(made.path) == before


def test_a_copied_or_touched_file_is_not_read_into_the_store_again(dataset: MugeFolder) -> None:
    made = preprocess(dataset, encoder=None)
    shard = made.path / "train" / "images-00000.arrow"
    before = shard.stat().st_mtime_ns
    os.utime(dataset.images_path("train"))
    preprocess(dataset, encoder=None)
    assert shard.stat().st_mtime_ns == before


def test_changed_titles_are_noticed(dataset: MugeFolder) -> None:
    preprocess(dataset, encoder=Characters())
    path = dataset.queries_path("train")
    path.write_text(path.read_text(encoding="utf-8").replace("红色", "蓝色"), encoding="utf-8")
    encoder = Characters()
    split = preprocess(dataset, encoder=encoder).split("train")
    assert split.texts[0] == "蓝色连衣裙"
    assert len(encoder.seen) == 4  # the validation split was not touched


def test_another_encoder_is_noticed_and_both_are_kept(dataset: MugeFolder) -> None:
    preprocess(dataset, encoder=Characters("one"))
    for name, count in (("two", 5), ("one", 0), ("two", 0)):
        encoder = Characters(name)
        preprocess(dataset, encoder=encoder)
        assert len(encoder.seen) == count


def test_only_the_newest_encoders_tokens_are_kept(dataset: MugeFolder) -> None:
    for name in "abcde":
        preprocess(dataset, encoder=Characters(name))
    kept = {path.name for path in (dataset.path / ".xmr" / "train").glob("tokens-*")}
    assert kept == {"tokens-c", "tokens-d", "tokens-e"}


@pytest.mark.usefixtures("many_shards")
def test_only_shards_whose_lines_changed_are_made_again(tmp_path: Path) -> None:
    images = [(n, picture(n, (20, 20))) for n in range(30)]
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], images)
    made = preprocess(folder, encoder=None)
    before = times(made.path / "train", "images-*.arrow")
    with open(folder.images_path("train"), "ab") as stream:
        stream.write(image_line(77, picture(77)))
    split = preprocess(folder, encoder=None).split("train")
    np.testing.assert_array_equal(split.image_ids, [*range(30), 77])
    after = times(made.path / "train", "images-*.arrow")
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed <= set(sorted(after)[-2:])
    assert len(after) > 4


@pytest.mark.usefixtures("many_shards")
def test_a_shorter_file_leaves_no_old_shards(tmp_path: Path) -> None:
    images = [(n, picture(n, (20, 20))) for n in range(30)]
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], images)
    preprocess(folder, encoder=None)
    write_split(tmp_path, "train", [(1, "a", (3,))], images[:5])
    split = preprocess(folder, encoder=None).split("train")
    np.testing.assert_array_equal(split.image_ids, range(5))


def test_another_version_of_the_store_is_made_anew(dataset: MugeFolder) -> None:
    made = preprocess(dataset, encoder=None)
    (made.path / "store.json").write_text('{"version": 0}', encoding="utf-8")
    with pytest.raises(InputError, match="no preprocessed dataset"):
        Store.open(made.path)
    before = times(made.path)
    preprocess(dataset, encoder=None)
    after = times(made.path)
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())


# ------------------------------------------------------------------------------- interruptions


def test_titles_go_on_where_a_killed_run_was(
    dataset: MugeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_run(dataset, monkeypatch)
    with open(folder / "ids.npy", "ab") as stream:  # what it wrote after its last save
        stream.write(b"half a record")
    encoder = Characters()
    split = preprocess(dataset, encoder=encoder, splits=["train"]).split("train")
    assert encoder.seen == ["童鞋 男", "帽子"]
    np.testing.assert_array_equal(split.tokens.ids, Characters()(list(split.texts)).ids)
    assert len(np.load(folder / "ids.npy")) == split.tokens.token_offsets[-1]


@pytest.mark.parametrize("workers", [1, 3])
def test_chunks_of_titles_stand_in_order_whoever_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(tokens, "_TITLES", 3)
    monkeypatch.setattr(convert, "_BATCH_BYTES", 200)
    queries = [(n, "裙" * (n % 5 + 1) + str(n), ()) for n in range(100)]
    folder = write_split(tmp_path / "data", "train", queries, [(1, picture(1))])
    split = preprocess(folder, encoder=Characters(), workers=workers).split("train")
    texts = [text for _, text, _ in queries]
    assert [split.texts[a:b] for a, b in ((0, 100), (7, 8), (30, 71), (9, 9))] == [
        texts[a:b] for a, b in ((0, 100), (7, 8), (30, 71), (9, 9))
    ]
    expected = Characters()(texts)
    for name in ("ids", "token_offsets", "bag_starts", "bag_ends", "bag_offsets"):
        np.testing.assert_array_equal(getattr(split.tokens, name), getattr(expected, name))


KILLED = """
import sys
from dataclasses import replace
from pathlib import Path
from bagformer_cli.data.store import preprocess as stages
from bagformer_cli.data.muge import MugeFolder
stages.IMAGE_LINES = replace(stages.IMAGE_LINES, range_bytes=20_000)
verify = stages.verify
def slowly(data):
    import time
    time.sleep(0.002)
    verify(data)
stages.verify = slowly
stages.preprocess(MugeFolder(sys.argv[1]), encoder=None)
"""


def test_kill_9_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [(n, picture(n, (30, 30))) for n in range(300)]
    folder = write_split(tmp_path / "data", "train", [(1, "a", (3,))], images)
    out = folder.path / ".xmr" / "train"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder.path)])
    deadline = time.monotonic() + 60
    while len(list(out.glob("images-*.arrow"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("images-*.arrow")}
    recorded = json.loads((out / "images.json").read_text(encoding="utf-8"))
    assert 2 <= len(recorded["spans"]) <= len(finished)
    assert not recorded["done"]
    monkeypatch.setattr(stages, "IMAGE_LINES", replace(stages.IMAGE_LINES, range_bytes=20_000))
    split = preprocess(folder, encoder=None).split("train")
    np.testing.assert_array_equal(split.image_ids, range(300))
    assert all(split.image_bytes(n) == data for n, data in images)
    kept = [out / f"images-{span['number']:05}.arrow" for span in recorded["spans"]]
    assert all(path.stat().st_mtime_ns == finished[path] for path in kept)
    assert not list(out.glob(".*.part"))


def test_two_at_a_time_do_not_disturb_each_other(dataset: MugeFolder) -> None:
    command = [sys.executable, "-c", KILLED, str(dataset.path)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert Store.open(dataset.path / ".xmr").split("train").image_bytes(0) == picture(20)


def test_a_folder_that_cannot_be_written_to_has_its_store_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert default_store(tmp_path).parent == Path(os.environ["XMR_CACHE"]) / "stores"


def test_a_store_that_cannot_be_written_is_used_for_what_it_has(
    dataset: MugeFolder, tmp_path: Path
) -> None:
    """A shared folder, or a volume that is mounted read-only; copied, so that its times differ."""
    preprocess(dataset, encoder=Characters())
    folder = MugeFolder(shutil.copytree(dataset.path, tmp_path / "copy"))
    before = {path: path.read_bytes() for path in folder.path.rglob("*.*") if path.is_file()}
    remarks = Remarks()
    with read_only(folder.path):
        same = preprocess(folder, encoder=Characters(), progress=remarks)
        assert same.path == folder.path / ".xmr"
        assert list(same.split("train").texts) == [text for _, text, _ in QUERIES]
        assert remarks.notes == []
        other = preprocess(folder, encoder=Characters("others"), progress=remarks)
        assert other.path.parent == Path(os.environ["XMR_CACHE"]) / "stores"
        assert other.dataset == folder.path
        assert len(other.split("train").tokens) == len(QUERIES)
        assert str(other.path) in remarks.notes[0]
    assert before == {
        path: path.read_bytes() for path in folder.path.rglob("*.*") if path.is_file()
    }


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Inside, nothing in a folder can be changed."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with permissions_count():
        yield
    for path in paths:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_full_disk_loses_nothing_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "IMAGE_LINES", replace(stages.IMAGE_LINES, range_bytes=20_000))
    images = [(n, picture(n, (30, 30))) for n in range(10)]
    images += [(50, picture(50, (200, 200)) + bytes(100_000))]
    folder = write_split(tmp_path, "train", [(1, "a", (3,))], images)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, old[1]))
    try:
        with pytest.raises(DiskFullError):
            preprocess(folder, encoder=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    out = folder.path / ".xmr" / "train"
    assert [path.name for path in sorted(out.glob("*.arrow"))] == ["images-00000.arrow"]
    assert not list(out.glob(".*.part"))
    assert len(preprocess(folder, encoder=None).split("train").image_ids) == 11


# --------------------------------------------------------------------------------------- arrays


def test_a_growing_array_is_always_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    array = GrowingArray(path, np.int32)
    for part in range(3):
        array.append(np.arange(part * 10, part * 10 + 10))
        array.sync()
        np.testing.assert_array_equal(np.load(path), np.arange(part * 10 + 10))
    array.append(np.arange(5))  # never synced
    array.close()
    again = GrowingArray(path, np.int32, 20)
    again.append(np.array([-1]))
    again.sync()
    again.close()
    np.testing.assert_array_equal(np.load(path), [*range(20), -1])


@pytest.mark.slow
def test_memory_stays_flat(tmp_path: Path) -> None:
    """Preprocessing 400 MB of images takes hardly more memory than preprocessing 40 MB."""
    script = (
        "import resource, sys; from bagformer_cli.data.muge import MugeFolder;"
        "from bagformer_cli.data.store.preprocess import preprocess;"
        "preprocess(MugeFolder(sys.argv[1]), encoder=None);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    peaks = []
    data = picture(1, (30, 30)) + bytes(30_000)
    for name, count in (("small", 1_000), ("large", 10_000)):
        images = ((n, data) for n in range(count))
        folder = write_split(tmp_path / name, "train", [(1, "a", (3,))], list(images))
        command = [sys.executable, "-c", script, str(folder.path)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True).stdout))
    assert peaks[1] < peaks[0] + 40


def _numbered(raw: bytes) -> tuple[int]:
    if raw == b"x":
        raise convert.LineLeftOutError(7, DataError("broken"))
    return (int(raw),)


@settings(max_examples=15, deadline=None)  # times vary on a loaded machine
@given(st.lists(st.sampled_from([b"", b" ", b"x", b"5", b"123456"]), max_size=12))
def test_lines_keep_their_numbers_across_blank_and_broken_ones(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("store")
    (folder / "source").write_bytes(b"\n".join([*lines, b"9"]))
    form = convert.LineFormat("rows", pa.schema({"number": pa.int64()}), _numbered, 10)
    for _ in range(2):  # the second record is read from its file
        record = convert.convert(folder / "source", folder, form, lambda folder, record: None)
        assert [line.line for line in record.left_out] == [
            at for at, line in enumerate(lines, 1) if line == b"x"
        ]
        rows = [at for at, line in enumerate([*lines, b"9"], 1) if line.strip().isdigit()]
        assert [record.line_of(row) for row in range(len(rows))] == rows
