"""``xmr data`` and ``xmr preprocess``: results, JSON, exit codes."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from bagformer_cli.data.importing.lmdb_import import import_lmdb, unpickle
from bagformer_cli.data.importing.table_import import TableOptions, import_table
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.errors import DataError, InputError
from tests.conftest import Run
from tests.support.datasets import image_line, picture, query_line, write_split

Xmr = Callable[..., Run]


# ----------------------------------------------------------------------------------------- check


def test_check_finds_every_broken_line(tmp_path: Path, xmr: Xmr) -> None:
    images = [(1, picture(1)), (2, picture(2)), (9, picture(9))]
    folder = write_split(tmp_path, "valid", [(1, "红色裙", (1, 2)), (2, "包", (1,))], images)
    queries, tsv = folder.queries_path("valid"), folder.images_path("valid")
    with open(queries, "ab") as stream:
        stream.write(b"oops\n" + query_line("3", "a", []) + query_line(4, "帽", [1, 77, 78]))
        stream.write(query_line(2, "again", [1]))
    with open(tsv, "ab") as stream:
        stream.write(b"no tab\n" + b"5\t!\n" + image_line(6, b"text"))
        stream.write(image_line(7, picture(3, (50, 50), "JPEG")[:-100]) + image_line(2, b"x"))
        stream.write(image_line(1, picture(4)))
    run = xmr("data", "check", folder.path, "--workers", "1", "--json")
    assert run.code == 2
    found = run.json()
    places = [(Path(p["file"]).name, p["line"]) for p in found["problems"]]
    assert sorted(places) == sorted(
        [
            *((queries.name, line) for line in (3, 4, 5, 6)),
            *((tsv.name, line) for line in (4, 5, 6, 7, 8, 9)),
        ]
    )
    assert not found["ok"]
    assert found["splits"]["valid"] == {
        "queries": 3,
        "images": 3,
        "pairs": 6,
        "images_without_query": 1,
        "queries_without_image": 0,
        "queries_with_several_images": 2,
        "longest_query": 5,
    }
    shown = xmr("data", "check", folder.path, "--workers", "1")
    assert shown.code == 2
    assert f"{tsv}:4: The line has no tab" in shown.out
    assert f"{queries}:5: The query names an image that is not in the images file." in shown.out
    assert "77, 78" in shown.out
    assert "10 broken lines or files." in shown.out


def test_check_of_a_good_dataset_ends_with_0(tmp_path: Path, xmr: Xmr) -> None:
    write_split(tmp_path, "train")
    run = xmr("data", "check", tmp_path)
    assert run.code == 0
    assert "Nothing is broken." in run.out


def test_check_names_the_missing_half_of_a_split(tmp_path: Path, xmr: Xmr) -> None:
    folder = write_split(tmp_path, "train")
    write_split(tmp_path, "valid")
    folder.images_path("valid").unlink()
    run = xmr("data", "check", tmp_path, "--json")
    assert run.code == 2
    assert run.json()["problems"] == [
        {
            "file": str(folder.images_path("valid")),
            "line": 0,
            "message": "The file is missing; only MR_valid_queries.jsonl exists.",
            "found": None,
        }
    ]


def test_check_by_several_processes_counts_lines_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bagformer_cli.data import check

    monkeypatch.setattr(check, "RANGE_BYTES", 1_000)
    images = [(n, picture(n)) for n in range(20)]
    folder = write_split(tmp_path, "train", [(1, "a", (1,))], images)
    with open(folder.images_path("train"), "ab") as stream:
        stream.write(b"broken\n" + image_line(3, picture(3)))
    report = check.check_folder(folder, workers=2)
    assert [problem.line for problem in report.problems] == [21, 22]
    assert report.splits["train"].images == 20


# ---------------------------------------------------------------------------------------- import


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "image,title\na.png,红色裙\nb.png,红色裙\nb.png,包\n"),
        ("t.csv", "a.png,红色裙\nb.png,红色裙\nb.png,包\n"),
        ("t.csv", "\ufefftitle,file\n红色裙,a.png\n红色裙,b.png\n\n包,b.png\n"),
        ("t.tsv", "path\ttext\na.png\t红色裙\nb.png\t红色裙\nb.png\t包\n"),
        (
            "t.jsonl",
            '{"image": "a.png", "title": "红色裙"}\n{"image": "b.png", "title": "红色裙"}\n\n'
            '{"text": "包", "image_path": "b.png"}\n',
        ),
    ],
)
def test_tables_become_datasets(tmp_path: Path, name: str, content: str) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / name).write_text(content, encoding="utf-8")
    written = import_table(tmp_path / name, tmp_path / "out")
    assert {split: (w.queries, w.images, w.pairs) for split, w in written.items()} == {
        "train": (2, 2, 3)
    }
    folder = MugeFolder(tmp_path / "out")
    queries = [(q.query_id, q.text, q.item_ids) for q in iter_queries(folder.queries_path("train"))]
    assert queries == [(1, "红色裙", (1, 2)), (2, "包", (2,))]
    images = dict(iter_images(folder.images_path("train")))
    assert images == {1: picture(0), 2: picture(1)}


def test_ids_splits_and_image_folders_of_a_table(tmp_path: Path, xmr: Xmr) -> None:
    pictures(tmp_path / "pics", "a.png", "b.png", "c.png")
    table = tmp_path / "table.csv"
    table.write_text(
        "query_id,title,image,image_id,split\n70,裙,a.png,5,train\n,包,b.png,,valid\n"
        "1,帽,c.png,1,train\n",
        encoding="gb18030",
    )
    out = tmp_path / "out"
    arguments = ("data", "import", table, "--out", out, "--images", tmp_path / "pics", "--json")
    assert xmr(*arguments).code == 2  # not UTF-8, and the hint says what to try
    run = xmr(*arguments, "--encoding", "gb18030", "--naming", "text")
    assert run.code == 0
    assert set(run.json()["splits"]) == {"train", "valid"}
    folder = MugeFolder(out)
    assert folder.naming == "text"
    train = [(q.query_id, q.item_ids) for q in iter_queries(folder.queries_path("train"))]
    assert train == [(70, (5,)), (1, (1,))]
    valid = [(q.query_id, q.item_ids) for q in iter_queries(folder.queries_path("valid"))]
    assert valid == [(2, (2,))]  # the first numbers that are free


def test_what_shares_a_title_or_an_image_stays_in_one_split(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{n}.png" for n in range(60)))
    lines = [f"{n}.png,标题{n // 2}" for n in range(60)] + ["0.png,标题29"]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    import_table(tmp_path / "t.csv", tmp_path / "out", TableOptions(valid=0.3, test=0.2))
    folder = MugeFolder(tmp_path / "out")
    assert folder.splits == ["train", "valid", "test"]
    seen: dict[str, set[int]] = {}
    for split in folder.splits:
        queries = list(iter_queries(folder.queries_path(split)))
        images = dict(iter_images(folder.images_path(split)))
        assert {i for q in queries for i in q.item_ids} == set(images)
        seen[split] = {q.query_id for q in queries}
        for ids in ({1, 30},):
            assert ids <= seen[split] or not ids & seen[split]
    assert sum(map(len, seen.values())) == 30
    assert 3 <= len(seen["valid"]) <= 16


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,title\na.png,\n", "title is empty"),
        ("image,title\nnone.png,裙\n", "cannot be read"),
        ("image,title\nbad.png,裙\n", "not an image"),
        ("image,title,image_id\na.png,裙,x\n", "not a whole number"),
        ("image,title,image_id\na.png,裙,1\nb.png,包,1\n", "contradicts"),
        ("image,title,split\na.png,裙,dev\n", "no such split"),
        ("image,title,split\na.png,裙,train\na.png,包,valid\n", "another split"),
        ("photo,title\na.png,裙\n", "no column 'image'"),
        ("name,pic\n裙,a.png\n", "neither images nor titles. .found: name, pic; expected: .*图片"),
        ("名称,照片\n裙,a.png\n", "neither images nor titles"),
        ("image_1,裙\n", "image_1: No such file"),  # without headings: a path
        ("", "empty"),
    ],
)
def test_a_broken_table_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, content: str, message: str
) -> None:
    pictures(tmp_path, "a.png", "b.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message) as caught:
        import_table(tmp_path / "t.csv", tmp_path / "out")
    assert caught.value.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_broken_images_of_a_table_can_be_left_out(tmp_path: Path, xmr: Xmr) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "bad.png").write_bytes(b"text")
    (tmp_path / "t.csv").write_text("a.png,裙\nbad.png,裙\nnone.png,包\n", encoding="utf-8")
    run = xmr(
        "data", "import", tmp_path / "t.csv", "--out", tmp_path / "o", "--skip-broken", "--json"
    )
    assert run.code == 0
    assert run.json()["splits"]["train"] == {"queries": 1, "images": 1, "pairs": 1}
    assert "t.csv:2" in run.err
    assert "t.csv:3" in run.err


def test_an_import_never_writes_over_a_dataset(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png")
    (tmp_path / "t.csv").write_text("a.png,裙\n", encoding="utf-8")
    import_table(tmp_path / "t.csv", tmp_path / "out")
    with pytest.raises(InputError, match="already exists"):
        import_table(tmp_path / "t.csv", tmp_path / "out")


# ------------------------------------------------------------------------------------------ LMDB


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
    written = import_lmdb(tmp_path / "lmdb", tmp_path / "out")
    assert written["test"].queries == 2


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
        import_lmdb(tmp_path / "lmdb", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plain_values_are_unpickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        value = (5, "7", "红色", [b"x" if protocol > 2 else "x", 2**80])
        assert unpickle(pickle.dumps(value, protocol), "here") == value


@pytest.mark.parametrize("counts", [{"imgs": b"x"}, {"pairs": b""}, {"pairs": b"5"}])
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


# ------------------------------------------------------------------------------------ preprocess


def test_preprocess_prints_what_it_made(tmp_path: Path, xmr: Xmr) -> None:
    write_split(tmp_path, "train")
    run = xmr("preprocess", "--dataset", tmp_path, "--json")
    assert run.code == 0, run.err
    found = run.json()
    assert found["store"] == str(tmp_path / ".xmr")
    (split,) = found["splits"]
    assert (split["split"], split["queries"], split["images"]) == ("train", 2, 2)
    assert split["tokens"] >= split["bags"] >= 2
    again = xmr("preprocess", "--dataset", tmp_path)
    assert again.code == 0
    assert "train" in again.out


def test_preprocess_of_titles_alone(tmp_path: Path, xmr: Xmr) -> None:
    folder = write_split(tmp_path, "train")
    folder.images_path("train").unlink()
    run = xmr("preprocess", "--dataset", tmp_path, "--text-only", "--json")
    assert run.code == 0, run.err
    assert run.json()["splits"][0]["images"] is None


def test_preprocess_of_titles_alone_needs_no_torch(tmp_path: Path) -> None:
    write_split(tmp_path, "train")
    program = (
        "import sys\n"
        "from bagformer_cli.cli.main import main\n"
        f"assert main(['preprocess', '--dataset', {str(tmp_path)!r}, '--text-only']) == 0\n"
        "print(sorted({'torch', 'transformers', 'timm'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "none"), "no dataset of that name"),
        (("--dataset", "muge"), "107332"),
        (("--dataset", "."), "no dataset in MUGE form"),
        (("--engine", "slurm"), "slurm"),
    ],
)
def test_preprocess_of_nothing_ends_with_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    xmr: Xmr,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = xmr("preprocess", *arguments)
    assert run.code == 2
    assert message in run.err
    assert run.out == ""


def test_a_broken_line_ends_with_2_and_one_block(tmp_path: Path, xmr: Xmr) -> None:
    folder = write_split(tmp_path, "train")
    with open(folder.images_path("train"), "ab") as stream:
        stream.write(b"no tab\n")
    run = xmr("preprocess", "--dataset", tmp_path)
    assert run.code == 2
    assert f"{folder.images_path('train')}:3" in run.err
    assert "Traceback" not in run.err


@pytest.mark.slow
def test_a_drawn_dataset_passes_the_check(tmp_path: Path, xmr: Xmr) -> None:
    run = xmr("data", "demo", "--out", tmp_path / "d", "--images", "60", "--seed", "1", "--json")
    assert run.code == 0, run.err
    assert xmr("data", "check", tmp_path / "d").code == 0


@pytest.mark.shared
def test_the_real_sample_where_muge_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path, xmr: Xmr
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "data" / "muge"
    target.mkdir(parents=True)
    for path in (shared / "data" / "muge_sample").iterdir():
        shutil.copyfile(path, target / path.name)
    assert xmr("data", "check", "muge").code == 0
    run = xmr("preprocess", "--dataset", "muge", "--json")
    assert run.code == 0
    (split,) = run.json()["splits"]
    assert (split["split"], split["queries"], split["images"]) == ("valid", 2, 8)
