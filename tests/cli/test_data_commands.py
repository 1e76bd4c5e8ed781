"""``xmr data`` and ``xmr preprocess``: results, JSON, exit codes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bagformer_cli.errors import InputError
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
        "answers_hidden": False,
    }
    shown = xmr("data", "check", folder.path, "--workers", "1")
    assert shown.code == 2
    assert f"{tsv}:4: The line has no tab" in shown.out
    assert f"{queries}:5: The query names an image that is not in the images file." in shown.out
    assert "77, 78" in shown.out
    assert "10 broken lines or files." in shown.out


def test_check_tells_a_query_of_a_broken_image_from_one_of_no_image(
    tmp_path: Path, xmr: Xmr
) -> None:
    images = [(1, picture(1)), (2, b"no image")]
    folder = write_split(tmp_path, "valid", [(1, "红色裙", (1, 2, 3))], images)
    shown = xmr("data", "check", folder.path, "--json").json()
    queries = str(folder.queries_path("valid"))
    found = {p["message"]: p["found"] for p in shown["problems"] if p["file"] == queries}
    assert found == {
        "The query names an image that is not in the images file.": "3",
        "The query names a broken image.": "2",
    }


def test_check_says_that_answers_are_hidden(tmp_path: Path, xmr: Xmr) -> None:
    write_split(tmp_path, "valid", [(1, "红色裙", (1,))], [(1, picture(1)), (2, picture(2))])
    queries = [(1, "红色裙", ()), (2, "包", ())]
    folder = write_split(tmp_path, "test", queries, [(1, picture(1)), (2, picture(2))])
    found = xmr("data", "check", folder.path, "--json").json()["splits"]
    assert [found[name]["images_without_query"] for name in ("valid", "test")] == [1, None]
    assert [found[name]["pairs"] for name in ("valid", "test")] == [1, None]
    assert [found[name]["answers_hidden"] for name in ("valid", "test")] == [False, True]
    shown = xmr("data", "check", folder.path)
    assert shown.code == 0
    assert "answers of test are hidden" in " ".join(shown.out.split())


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


# ------------------------------------------------------------------------------------ preprocess


def test_preprocess_prints_what_it_made(tmp_path: Path, xmr: Xmr) -> None:
    write_split(tmp_path, "train")
    run = xmr("preprocess", "--dataset", tmp_path, "--config", "demo", "--json")
    assert run.code == 0, run.err
    found = run.json()
    assert found["store"] == str(tmp_path / ".xmr")
    (split,) = found["splits"]
    assert (split["split"], split["queries"], split["images"]) == ("train", 2, 2)
    assert split["tokens"] >= split["bags"] >= 2
    again = xmr("preprocess", "--dataset", tmp_path, "--config", "demo")
    assert again.code == 0
    assert "train" in again.out


def test_preprocess_of_titles_alone(tmp_path: Path, xmr: Xmr) -> None:
    folder = write_split(tmp_path, "train")
    folder.images_path("train").unlink()
    run = xmr("preprocess", "--dataset", tmp_path, "--config", "demo", "--text-only", "--json")
    assert run.code == 0, run.err
    assert run.json()["splits"][0]["images"] is None


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (["--dataset", "muge"], "muge_bagformer"),
        (["--dataset", "muge", "--mode", "inflate"], "inflate_shrink"),
        (["--dataset", "shop"], "muge_bagformer"),
        (["--dataset", "shop", "--config", "demo"], "demo"),
    ],
)
def test_preprocess_cuts_titles_as_the_same_training_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, xmr: Xmr, arguments: list[str], config: str
) -> None:
    """A training with these options finds every title cut: nothing is made a second time."""
    from bagformer_cli.text.bags import TitleEncoder
    from bagformer_cli.training import job as jobs

    monkeypatch.chdir(tmp_path)
    write_split(tmp_path / "data/muge", "train")
    write_split(tmp_path / "shop", "train")
    smaller = ["--set", "text.tokenizer=builtin", "--set", "text.pretrained=null"]
    run = xmr("preprocess", *arguments, *smaller, "--json")
    assert run.code == 0, run.err
    assert run.json()["config"] == config

    def cut_again(*_: object) -> None:
        raise AssertionError("the titles were cut again")

    def begin(*_: object) -> None:
        raise InputError("the training begins")

    monkeypatch.setattr(TitleEncoder, "__call__", cut_again)
    monkeypatch.setattr(jobs, "train", begin)
    small = ["image.pretrained=false", "image.backbone=resnet10t", "text.layers=1"]
    run = xmr("train", *arguments, *smaller, *(part for one in small for part in ("--set", one)))
    assert "the training begins" in run.err


def test_preprocess_of_titles_alone_needs_no_torch(tmp_path: Path) -> None:
    write_split(tmp_path, "train")
    program = (
        "import sys\n"
        "from bagformer_cli.cli.main import main\n"
        f"arguments = ['--dataset', {str(tmp_path)!r}, '--config', 'demo', '--text-only']\n"
        "assert main(['preprocess', *arguments]) == 0\n"
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
    run = xmr("preprocess", "--dataset", tmp_path, "--config", "demo")
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
    run = xmr("preprocess", "--dataset", "muge", "--config", "demo", "--json")
    assert run.code == 0
    (split,) = run.json()["splits"]
    assert (split["split"], split["queries"], split["images"]) == ("valid", 2, 8)
