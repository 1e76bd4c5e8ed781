"""Evaluation uses the right data and model, and never prints a recall that means nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest

from tests.support.black_box import DATA, PHOTOS, assert_no_bug, assert_refused
from tests.support.datasets import picture, write_split
from tests.support.small_model import TINY


def numbered(folder: Path, *splits: str, count: int = 12, answers: bool = True) -> Path:
    """Write splits with ``count`` images and as many queries."""
    for split in splits:
        queries = [
            (n, f"红色商品{n}号", (100 + n,) if answers else ()) for n in range(1, count + 1)
        ]
        images = [(100 + n, picture(n)) for n in range(1, count + 1)]
        write_split(folder, split, queries, images)
    return folder


def train(xmr: Callable[..., Any], folder: Path, out: Path, *sets: str) -> Any:
    """Train a tiny model for one step."""
    overrides = [
        part
        for item in [*TINY, "training.max_steps=1", "training.batch_size=4", *sets]
        for part in ("--set", item)
    ]
    return xmr("train", "--config", "demo", "--dataset", folder, "--output-dir", out, "--json",
               *overrides)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# Which data, which model.


def test_eval_of_a_run_takes_the_dataset_of_the_run(xmr: Callable[..., Any], home: Path) -> None:
    numbered(home / "mine", "train", "valid")
    assert train(xmr, home / "mine", home / "runs/a").code == 0
    run = xmr("eval", "--checkpoint", home / "runs/a", "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert report["n_items"] == 12
    assert Path(report["dataset"]).name == "mine"
    assert not (home / "data/demo").exists()  # the demo was neither drawn nor used


def test_the_hint_after_training_carries_the_dataset(xmr: Callable[..., Any], home: Path) -> None:
    numbered(home / "mine", "train", "valid")
    overrides = [
        part
        for item in [*TINY, "training.max_steps=1", "training.batch_size=4"]
        for part in ("--set", item)
    ]
    run = xmr("train", "--config", "demo", "--dataset", home / "mine", "--output-dir", "runs/a",
              *overrides)  # fmt: skip
    assert run.code == 0, run.err
    (hint,) = [line for line in (run.out + run.err).splitlines() if "xmr eval" in line]
    assert "mine" in hint or "--dataset" not in hint
    again = xmr("eval", "--checkpoint", "runs/a", "--json")
    assert again.json()["n_items"] == 12


def test_compare_takes_the_dataset_of_the_runs(xmr: Callable[..., Any], home: Path) -> None:
    numbered(home / "mine", "train", "valid")
    for name in ("a", "b"):
        assert train(xmr, home / "mine", home / "runs" / name).code == 0
    run = xmr("compare", "runs/a", "runs/b", "--json")
    assert run.code == 0, run.err
    assert "mine" in run.out
    assert not (home / "data/demo").exists()


@pytest.mark.parametrize(
    "command", ["eval", *(pytest.param(name, marks=pytest.mark.slow)
                          for name in ("score", "encode", "index build"))],
)  # fmt: skip
def test_the_newest_run_is_named_with_its_step_and_recall_and_others_are_listed(
    xmr: Callable[..., Any], home: Path, command: str
) -> None:
    numbered(home / "mine", "train", "valid")
    for name in ("first", "second"):
        assert train(xmr, home / "mine", home / "runs" / name, "training.max_steps=3").code == 0
    (home / "a.png").write_bytes(picture(1))
    (home / "t.csv").write_text("id,image,title\na,a.png,红裙\n")
    run = xmr(
        *{
            "eval": ["eval", "--dataset", "mine"],
            "score": ["score", "a.png", "红裙"],
            "encode": ["encode", "t.csv", "--out", "v"],
            "index build": ["index", "build", "t.csv", "i"],
        }[command]
    )
    assert run.code == 0, run.err
    said = run.err + run.out
    assert "second" in said
    assert "first" in said  # the other candidate
    assert "step" in said
    assert "recall" in said.lower()


def test_load_without_a_name_says_which_run_it_took(
    xmr: Callable[..., Any], home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from bagformer_cli import load

    numbered(home / "mine", "train", "valid")
    assert train(xmr, home / "mine", home / "runs/only").code == 0
    assert load(device="cpu").encode_texts(["红裙"]).values.shape[0]
    (said,) = [record.message for record in caplog.records if record.name == "bagformer_cli"]
    assert "runs/only" in said
    assert "recall" in said


@pytest.mark.slow
def test_a_demo_model_says_that_it_has_seen_drawn_pictures_only(
    xmr: Callable[..., Any], home: Path
) -> None:
    assert xmr("data", "demo", "--out", "data/demo", "--images", 60).code == 0
    overrides = [
        part
        for item in [*TINY, "training.max_steps=1", "training.batch_size=4"]
        for part in ("--set", item)
    ]
    assert xmr("train", "--output-dir", "runs/d", *overrides).code == 0
    (home / "a.jpg").write_bytes((PHOTOS / "p1.jpg").read_bytes())
    (home / "t.csv").write_text("id,image,title\na,a.jpg,红裙\n")
    run = xmr("index", "build", "t.csv", "i", "--json")
    assert run.code == 0, run.err
    assert "demo" in run.err
    assert re.search("drawn|generated|synthetic", run.err)


def test_a_run_is_evaluated_on_its_own_dataset_from_any_folder(
    xmr: Callable[..., Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered(home / "mine", "train", "valid")
    assert train(xmr, Path("mine"), Path("runs/a")).code == 0
    numbered(tmp_path / "other/mine", "valid", count=11)  # of the same name
    monkeypatch.chdir(tmp_path / "other")
    assert xmr("eval", "--checkpoint", home / "runs/a", "--json").json()["n_items"] == 12
    (home / "mine").rename(home / "moved")
    assert_refused(xmr("eval", "--checkpoint", home / "runs/a/best"), "mine", "--dataset")
    run = xmr("eval", "--checkpoint", home / "runs/a", "--dataset", home / "moved", "--json")
    assert run.json()["n_items"] == 12
    monkeypatch.chdir(home)
    resume = ["train", "--resume", "--output-dir", "runs/a"]
    assert_refused(xmr(*resume), "mine", "data.dataset")
    assert xmr(*resume, "--set", "data.dataset=moved").code == 0


@pytest.mark.parametrize("command", ["eval --checkpoint", "compare"])
@pytest.mark.parametrize("part", ["runs/a", "runs/a/best"])
def test_a_model_from_elsewhere_does_not_choose_the_dataset(
    xmr: Callable[..., Any], home: Path, part: str, command: str
) -> None:
    numbered(home / "mine", "train", "valid")
    assert train(xmr, home / "mine", home / "runs/a").code == 0
    copytree(home / part, home / "theirs")
    rmtree(home / "mine/.xmr")
    assert_refused(xmr(*command.split(), home / "theirs"), "mine", "--dataset")
    assert not (home / "mine/.xmr").exists()
    run = xmr(*command.split(), home / "theirs", "--dataset", "mine", "--json")
    assert run.code == 0, run.err


def test_models_of_different_datasets_are_compared_on_a_named_one_only(
    xmr: Callable[..., Any], home: Path
) -> None:
    for name in ("mine", "yours"):
        numbered(home / name, "train", "valid")
        assert train(xmr, home / name, home / "runs" / name).code == 0
    assert_refused(xmr("compare", "runs/mine", "runs/yours"), "mine", "yours", "--dataset")
    assert xmr("compare", "runs/mine", "runs/yours", "--dataset", "mine").code == 0


@pytest.mark.parametrize(
    "options",
    [
        "--rerank 0 --tune-beta",
        "--rerank 0 --beta 1",
        "--tune-beta --beta 1",
        "--products p.tsv --rerank 5",
        "--products p.tsv --submission s.jsonl",
        "--items k.txt --submission s.jsonl",
        "--naming text",
        "--check s.jsonl --rerank 5",
        "--check s.jsonl --checkpoint r",
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    xmr: Callable[..., Any], model: Path, home: Path, options: str
) -> None:
    numbered(home / "set", "valid")
    checkpoint = [] if "--check" in options else ["--checkpoint", model]
    run = xmr("eval", "--dataset", "set", *checkpoint, *options.split())
    assert_refused(run, options.split()[0])
    assert not (home / "s.jsonl").exists()


def test_a_submission_is_checked_against_a_named_dataset_only(
    xmr: Callable[..., Any], home: Path
) -> None:
    (home / "s.jsonl").touch()
    assert_refused(xmr("eval", "--check", "s.jsonl"), "--dataset")
    assert not (home / "data").exists()


def fitting_bert(folder: Path, kind: str) -> Path:
    """A folder in transformers' form whose weights do not fit a BERT."""
    import transformers

    if kind == "another architecture":
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=32, vocab_size=100)
        transformers.GPT2Model(config).save_pretrained(folder)
    else:
        config = transformers.BertConfig(
            num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=48,
            vocab_size=100,
        )  # fmt: skip
        model = transformers.BertModel(config)
        tensors = {f"other.{name}": value for name, value in model.state_dict().items()}
        model.save_pretrained(folder)
        from safetensors.torch import save_file

        save_file({name: value.contiguous() for name, value in tensors.items()},
                  folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["another architecture", "other names"])
def test_pretrained_text_weights_that_do_not_fit_are_an_error(
    xmr: Callable[..., Any], home: Path, kind: str
) -> None:
    numbered(home / "mine", "train", "valid", count=4)
    folder = fitting_bert(home / "bert", kind)
    run = train(xmr, home / "mine", home / "runs/a", f"text.pretrained={folder}")
    assert_refused(run, "text.pretrained")
    assert len(run.err.splitlines()) < 12  # one block, not a table of every weight
    assert not (home / "runs/a").exists()


# Hidden answers.


def hidden(folder: Path, kind: str) -> tuple[Path, str]:
    """A split without answers; its folder and name."""
    if kind == "the case, no key":
        return copytree(DATA / "13-hidden-answers/tst", folder), "test"
    if kind == "the case, empty lists":
        return copytree(DATA / "13-hidden-answers/allempty", folder), "valid"
    numbered(folder, "test", answers=False)
    if kind == "twelve, null":
        path = folder / "MR_test_queries.jsonl"
        path.write_text(path.read_text("utf-8").replace('"item_ids": []', '"item_ids": null'))
    if kind == "twelve, no key":
        path = folder / "MR_test_queries.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        for line in lines:
            line.pop("item_ids", None)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder, "test"


HIDDEN = [
    "the case, no key",
    "the case, empty lists",
    "twelve, empty lists",
    "twelve, no key",
    "twelve, null",
]


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "table"])
@pytest.mark.parametrize("kind", HIDDEN)
def test_a_split_with_hidden_answers_has_no_recall(
    xmr: Callable[..., Any], model: Path, home: Path, kind: str, as_json: bool
) -> None:
    folder, split = hidden(home / "set", kind)
    run = xmr("eval", "--dataset", folder, "--split", split, "--checkpoint", model,
              *(["--json"] if as_json else []))  # fmt: skip
    assert_no_bug(run)
    assert "0.00" not in run.out
    assert '": 0.0' not in run.out.split("seconds")[0]
    assert "--submission" in run.err + run.out
    assert "answer" in run.err + run.out
    assert run.code in (0, 2)


@pytest.mark.parametrize("kind", ["twelve, empty lists", "twelve, no key"])
def test_a_submission_is_written_for_hidden_answers(
    xmr: Callable[..., Any], model: Path, home: Path, kind: str
) -> None:
    folder, split = hidden(home / "set", kind)
    run = xmr("eval", "--dataset", folder, "--split", split, "--checkpoint", model,
              "--submission", home / "out.jsonl")  # fmt: skip
    assert run.code == 0, run.err
    assert "0.00" not in run.out
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 12
    assert all(len(set(line["item_ids"])) == 10 for line in lines)


def test_some_hidden_answers_leave_the_recall_of_the_others(
    xmr: Callable[..., Any], model: Path, home: Path
) -> None:
    numbered(home / "set", "valid")
    path = home / "set/MR_valid_queries.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    whole = xmr("eval", "--dataset", home / "set", "--checkpoint", model, "--json").json()
    for line in lines[6:]:
        line["item_ids"] = []
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    run = xmr("eval", "--dataset", home / "set", "--checkpoint", model, "--json")
    assert run.code == 0, run.err
    assert "6" in run.err  # queries without an answer are counted
    assert whole["n_queries"] == 12


# Submissions.


@pytest.mark.parametrize("rerank", [1, 3, 9])
def test_a_submission_works_with_fewer_than_ten_reranked_candidates(
    xmr: Callable[..., Any], model: Path, home: Path, rerank: int
) -> None:
    numbered(home / "set", "valid")
    run = xmr("eval", "--dataset", home / "set", "--checkpoint", model, "--rerank", rerank,
              "--submission", home / "out.jsonl", "--json")  # fmt: skip
    assert run.code == 0, run.err
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text("utf-8").splitlines()]
    assert len(lines) == 12
    assert all(len(set(line["item_ids"])) == 10 for line in lines)
    top = [set(line["item_ids"][:rerank]) for line in lines]
    plain = xmr("eval", "--dataset", home / "set", "--checkpoint", model, "--rerank", 0,
                "--submission", home / "recall.jsonl", "--json")  # fmt: skip
    assert plain.code == 0, plain.err
    recall = [json.loads(line)["item_ids"] for line in
              (home / "recall.jsonl").read_text("utf-8").splitlines()]  # fmt: skip
    assert top == [set(items[:rerank]) for items in recall]
    assert [line["item_ids"][rerank:] for line in lines] == [items[rerank:] for items in recall]


@pytest.mark.parametrize(
    ("options", "order"), [(["--rerank", "0"], "recall"), (["--rerank", "12"], "merged")]
)
def test_a_submission_says_which_order_it_wrote(
    xmr: Callable[..., Any], model: Path, home: Path, options: Sequence[str], order: str
) -> None:
    numbered(home / "set", "valid")
    run = xmr("eval", "--dataset", home / "set", "--checkpoint", model, *options,
              "--submission", home / "out.jsonl")  # fmt: skip
    assert run.code == 0, run.err
    (said,) = [line for line in (run.out + run.err).splitlines() if "out.jsonl" in line]
    near = " ".join((run.out + run.err).split(said)[-1].splitlines()[:2])
    assert order in said + near or "rerank" in said + near


def test_the_submission_of_a_small_pool_says_why_it_is_not_written(
    xmr: Callable[..., Any], model: Path, home: Path
) -> None:
    numbered(home / "set", "valid", count=4)
    run = xmr("eval", "--dataset", home / "set", "--checkpoint", model,
              "--submission", home / "out.jsonl")  # fmt: skip
    assert_refused(run, "4 images")
    assert not (home / "out.jsonl").exists()
