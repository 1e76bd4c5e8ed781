"""``xmr data import`` of Chinese-CLIP's LMDB, whole, damaged or hostile."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from bagformer_cli.data.importing.lmdb_file import LmdbFile
from bagformer_cli.data.importing.lmdb_import import import_lmdb, unpickle
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.errors import DataError, InputError
from tests.conftest import Run
from tests.support.datasets import image_line, picture, write_split

Xmr = Callable[..., Run]


def write_lmdb(
    folder: Path, images: dict[bytes, bytes], pairs: dict[bytes, bytes], /, **counts: bytes
) -> None:
    for name, records, key in (("imgs", images, b"num_images"), ("pairs", pairs, b"num_samples")):
        (folder / name).mkdir(parents=True)
        with (
            lmdb.open(str(folder / name), map_size=1 << 24) as environment,
            environment.begin(write=True) as transaction,
        ):
            for number, value in records.items():
                transaction.put(number, value)
            transaction.put(key, counts.get(name, str(len(records)).encode()))


def text_of(number: int) -> bytes:
    return image_line(number, picture(number)).split(b"\t")[1].strip()


def test_an_lmdb_of_chinese_clip_becomes_a_dataset(tmp_path: Path, xmr: Xmr) -> None:
    pairs = [(12, 7, "红色裙"), (5, 7, "红色裙"), (12, 3, "包")]
    records = {str(n).encode(): pickle.dumps(pair) for n, pair in enumerate(pairs)}
    images = {str(n).encode(): text_of(n) for n in (12, 5, 100)}
    write_lmdb(tmp_path / "lmdb" / "valid", images, records)
    run = xmr("data", "import", tmp_path / "lmdb", "--out", tmp_path / "out", "--json")
    assert run.code == 0, run.err
    assert run.json()["splits"] == {"valid": {"queries": 2, "images": 3, "pairs": 3}}
    folder = MugeFolder(tmp_path / "out")
    assert folder.naming == "text"
    queries = [(q.query_id, q.text, q.item_ids) for q in iter_queries(folder.queries_path("valid"))]
    assert queries == [(7, "红色裙", (12, 5)), (3, "包", (12,))]
    assert dict(iter_images(folder.images_path("valid"))) == {n: picture(n) for n in (12, 5, 100)}
    assert xmr("data", "check", tmp_path / "out").code == 0


def test_queries_without_images_come_from_the_file_beside_the_lmdb(tmp_path: Path) -> None:
    write_split(tmp_path, "test", [(1, "包", ()), (2, "裙", (5,))], naming="text")
    write_lmdb(tmp_path / "lmdb" / "test", {b"5": text_of(5)}, {b"0": pickle.dumps((5, 2, "裙"))})
    done = import_lmdb(tmp_path / "lmdb", tmp_path / "out")
    assert done.splits["test"].queries == 2


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a pickle was run",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pickle.dumps(Harmful()), "more than plain values"),
        (pickle.dumps((1, 2, Harmful())), "more than plain values"),
        (b"cos\nsystem\n(S'false'\ntR.", "more than plain values"),
        (pickle.dumps((1, 2, "a"))[:-4], "broken"),
        (b"", "broken"),
        (pickle.dumps((1, "a")), "not a pair"),
        (pickle.dumps(("x", 2, "a")), "not a whole number"),
        (pickle.dumps((1, True, "a")), "not a whole number"),
        (pickle.dumps((1, 2, "")), "not a pair"),
    ],
)
def test_pickles_of_an_lmdb_run_nothing(tmp_path: Path, value: bytes, message: str) -> None:
    write_lmdb(tmp_path / "lmdb" / "train", {b"1": text_of(1)}, {b"0": value})
    with pytest.raises(DataError, match=message):
        import_lmdb(tmp_path / "lmdb", tmp_path / "out", strict=True)
    with pytest.raises(InputError, match="Nothing can be imported"):
        import_lmdb(tmp_path / "lmdb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plain_values_are_unpickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        value = (5, "7", "红色", [b"x" if protocol > 2 else "x", 2**80])
        assert unpickle(pickle.dumps(value, protocol)) == value


def test_broken_records_of_an_lmdb_are_left_out_and_named(tmp_path: Path, xmr: Xmr) -> None:
    write_lmdb(
        tmp_path / "lmdb/train",
        {b"1": text_of(1), b"2": b"no base64!", b"x": text_of(3)},
        {b"0": pickle.dumps((1, 1, "a")), b"1": b"broken", b"2": pickle.dumps((1, 1, "\ud83d"))},
        pairs=b"4",
    )
    run = xmr("data", "import", tmp_path / "lmdb", "--out", tmp_path / "o", "--json")
    assert run.code == 0, run.err
    assert run.json()["splits"]["train"] == {"queries": 1, "images": 1, "pairs": 1}
    assert len(run.json()["skipped"]) == 5
    for place in ("imgs:2", "imgs:x", "pairs:1", "pairs:2", "pairs:3"):
        assert place in run.err


@pytest.mark.parametrize("counts", [{"imgs": b"x"}, {"pairs": b""}, {"pairs": b"9" * 5000}])
def test_a_broken_lmdb_is_a_clear_error(tmp_path: Path, counts: dict[str, bytes]) -> None:
    pairs = {b"0": pickle.dumps((1, 1, "a"))}
    write_lmdb(tmp_path / "lmdb" / "train", {b"1": text_of(1)}, pairs, **counts)
    with pytest.raises(DataError):
        import_lmdb(tmp_path / "lmdb", tmp_path / "out")


def test_a_folder_without_an_lmdb_and_a_damaged_one_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no LMDB"):
        import_lmdb(tmp_path, tmp_path / "out")
    for name in ("imgs", "pairs"):
        (tmp_path / "lmdb" / "train" / name).mkdir(parents=True)
        (tmp_path / "lmdb" / "train" / name / "data.mdb").write_bytes(b"rubbish" * 1000)
    with pytest.raises(DataError, match="cannot be read"):
        import_lmdb(tmp_path / "lmdb", tmp_path / "out")


# The reader: equal to the library on whole files, an error on others, never a crash.


def written(folder: Path, count: int, largest: int) -> dict[bytes, bytes]:
    drawn = random.Random(count)
    records = {
        str(drawn.randrange(10**9)).encode(): drawn.randbytes(
            drawn.choice([0, 3, 100, 1500, 5000, largest])
        )
        for _ in range(count)
    }
    items = list(records.items())
    with lmdb.open(str(folder), map_size=1 << 27) as environment:
        for begin in range(0, count, 100):  # several transactions: both headers are used
            with environment.begin(write=True) as transaction:
                for key, value in items[begin : begin + 100]:
                    transaction.put(key, value)
    return records


@pytest.mark.parametrize("count", [0, 1, 4, 700])
def test_an_lmdb_is_read_as_its_library_wrote_it(tmp_path: Path, count: int) -> None:
    records = written(tmp_path, count, 200_000 if count < 10 else 9000)
    with LmdbFile(tmp_path) as file:
        assert list(file.items()) == sorted(records.items())
        for key, value in records.items():
            assert file.get(key) == value
        assert file.get(b"") is None
        assert file.get(b"x") is None


def test_damage_anywhere_is_an_error_or_other_records(tmp_path: Path) -> None:
    written(tmp_path, 150, 9000)
    path, drawn = tmp_path / "data.mdb", random.Random(5)
    whole = path.read_bytes()
    refused = 0
    for _ in range(150):
        data = bytearray(whole[: drawn.choice([len(whole), drawn.randrange(len(whole))])])
        for _ in range(drawn.randrange(1, 60)):
            if data:
                data[drawn.randrange(min(len(data), drawn.choice([300, 20_000])))] = (
                    drawn.randrange(256)
                )
        path.write_bytes(data)
        try:
            with LmdbFile(tmp_path) as file:
                for key, _value in list(file.items()):
                    file.get(key)
        except DataError as error:
            assert error.where == str(path)  # noqa: PT017 - most, not all, are refused
            refused += 1
    assert refused > 75
