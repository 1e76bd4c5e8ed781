"""A training job from Python: what `xmr train` does with its options."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bagformer_cli.config import load_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.data.store.store import Store
from bagformer_cli.datasets import ensure_store
from bagformer_cli.errors import ConfigError, InputError, XmrError
from bagformer_cli.models.build import build_titles
from bagformer_cli.models.checkpoint import saved_titles
from bagformer_cli.training import job as jobs
from bagformer_cli.training.distributed import Processes
from tests.support.datasets import write_split
from tests.support.remarks import Remarks
from tests.support.small_model import saved_model
from tests.support.small_run import TINY

SHORT = [*TINY, "training.max_steps=2", "training.schedule_steps=4"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, where ``runs/`` is made."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def store_of(job: jobs.Job, folder: Path) -> Store:
    pairs = write_split(folder / "pairs", "train", [(n, f"第{n}款", (n,)) for n in range(8)])
    return ensure_store(pairs, build_titles(job.config), workers=1)


def test_a_job_is_started_and_resumed(folder: Path) -> None:
    job = jobs.new_job("demo", SHORT)
    assert (job.run, job.resume) == (Path("runs/demo-bagwise"), False)
    store = store_of(job, folder)
    (result,) = jobs.train(job, store)
    assert result.steps == 2
    assert jobs.new_job("demo", SHORT).run == Path("runs/demo-bagwise-2")
    again = jobs.resume_job(overrides=["training.max_steps=4"])
    assert again.run == Path("runs/demo-bagwise")
    (result,) = jobs.train(again, store)
    assert result.steps == 4


def test_a_resumed_run_cuts_titles_with_its_own_dictionaries(folder: Path) -> None:
    """Those of the configuration may be edited or gone; the model goes on with what it learned."""
    words = folder / "own.tsv"
    words.write_text("第3款\tmodel\n", "utf-8")
    job = jobs.new_job("demo", [*SHORT, f"text.lexicons=[builtin, {words}]"])
    pairs = write_split(folder / "pairs", "train", [(n, f"第{n}款", (n,)) for n in range(8)])
    before = jobs.titles(job)
    jobs.train(job, ensure_store(pairs, before, workers=1))
    again = jobs.resume_job(overrides=["training.max_steps=4"])
    for number, change in enumerate(("第4款\tmodel\n", None)):
        words.unlink() if change is None else words.write_text(change, "utf-8")
        remarks = Remarks()
        titles = jobs.titles(again, remarks)
        assert titles.fingerprint == before.fingerprint
        assert "dictionaries of the configuration have changed" in remarks.warnings[0]
        if number == 0:
            edited = ensure_store(pairs, build_titles(again.config), workers=1)
            with pytest.raises(InputError, match="cut with another vocabulary"):
                jobs.train(again, edited)
    (result,) = jobs.train(again, ensure_store(pairs, titles, workers=1))
    assert result.steps == 4
    assert saved_titles(result.run / "last").fingerprint == before.fingerprint


def test_a_resume_says_that_the_training_data_has_changed(folder: Path) -> None:
    job = jobs.new_job("demo", SHORT)
    jobs.train(job, store_of(job, folder))
    write_split(folder / "pairs", "train", [(n, f"第{n}版", (n,)) for n in range(8)])
    for steps, changed in ((3, True), (4, False)):
        again = jobs.resume_job(overrides=[f"training.max_steps={steps}"])
        store = ensure_store(MugeFolder(folder / "pairs"), jobs.titles(again), workers=1)
        remarks = Remarks()
        jobs.train(again, store, progress=remarks)
        said = [text for text in remarks.warnings if "training split have changed" in text]
        assert len(said) == changed, steps


def test_a_chain_that_was_moved_is_resumed_with_its_own_teachers(folder: Path) -> None:
    (folder / "chain.yaml").write_text("chain: [fast, shrinktofast]\n")
    job = jobs.new_job("demo", SHORT, mode="chain.yaml", output_dir=folder / "old")
    store = store_of(job, folder)
    jobs.train(job, store)
    (folder / "old").rename(folder / "new")
    for _ in range(2):  # with a second run that was begun, and with one that was not
        results = jobs.train(jobs.resume_job(folder / "new"), store)
        assert [one.steps for one in results] == [2, 2]
        teacher = load_config(folder / "new/2-shrinktofast/config.yaml").distill
        assert teacher is not None
        assert teacher.teacher == str(folder / "new/1-fast/best")
        shutil.rmtree(folder / "new/2-shrinktofast")


def test_a_teacher_that_was_moved_is_named_by_its_new_path(folder: Path) -> None:
    base = jobs.new_job("demo", SHORT, mode="fast", output_dir=folder / "teacher")
    store = store_of(base, folder)
    jobs.train(base, store)
    student = jobs.new_job(
        "demo", SHORT, mode="shrinktofast", teacher=folder / "teacher", output_dir=folder / "run"
    )
    jobs.train(student, store)
    (folder / "teacher").rename(folder / "moved")
    with pytest.raises(InputError, match=r"--set distill\.teacher=PATH") as caught:
        jobs.train(jobs.resume_job(folder / "run", ["training.max_steps=3"]), store)
    assert str(folder / "teacher") in str(caught.value.where)
    here = ["training.max_steps=3", f"distill.teacher={folder / 'moved'}"]
    (result,) = jobs.train(jobs.resume_job(folder / "run", here), store)
    assert result.steps == 3
    assert str(folder / "moved") in (folder / "run/last/config.yaml").read_text("utf-8")
    saved_model(folder / "other", seed=1)
    other = jobs.resume_job(folder / "run", [f"distill.teacher={folder / 'other'}"])
    with pytest.raises(InputError, match="has changed since the run was started"):
        jobs.train(other, store)
    with pytest.raises(ConfigError, match="cannot change when a run is resumed"):
        jobs.resume_job(folder / "run", ["distill.teacher=null"])


def test_an_output_folder_that_holds_a_run_is_refused_before_anything_is_loaded(
    folder: Path,
) -> None:
    (folder / "run").mkdir()
    (folder / "run/config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="already holds a run"):
        jobs.new_job("demo", SHORT, output_dir=folder / "run")


def test_a_teacher_is_distilled_or_the_weights_to_start_from(folder: Path) -> None:
    base = jobs.new_job("demo", SHORT, mode="fast", output_dir=folder / "teacher")
    jobs.train(base, store_of(base, folder))
    teacher = folder / "teacher"
    student = jobs.new_job("demo", SHORT, mode="shrinktofast", teacher=teacher)
    assert student.config.distill is not None
    assert student.config.distill.teacher == str(teacher)
    assert student.config.training.checkpoint is None
    plain = jobs.new_job("demo", SHORT, mode="fast", teacher=teacher)
    assert plain.config.training.checkpoint == str(teacher)
    # The first run of a chain starts from a checkpoint; the others start from their teachers.
    start = [*SHORT, f"training.checkpoint={teacher}"]
    (folder / "chain.yaml").write_text("chain: [fast, shrinktofast]\n")
    chain = jobs.new_job("demo", start, mode=str(folder / "chain.yaml")).stages
    first, second = chain["1-fast"], chain["2-shrinktofast"]
    assert first.training.checkpoint == str(teacher)
    assert second.training.checkpoint is None
    assert second.distill is not None
    assert second.distill.teacher.endswith("1-fast/best")


def test_a_chain_has_a_configuration_for_each_run(folder: Path) -> None:
    job = jobs.new_job("demo_shared", SHORT, mode="chain")
    assert list(job.stages) == ["1-inflate", "2-shrinktobase", "3-shrinktofast"]
    second = job.stages["2-shrinktobase"].distill
    assert second is not None
    assert second.teacher == str(job.run / "1-inflate/best")


@pytest.mark.parametrize(
    ("last", "message", "where"),
    [
        ("distill: {}\ntext: {max_tokens: 9}", "cannot be the teacher", "2-inflate/best"),
        ("distill: {scorer: slow, weight: 1.0}", "cannot be the teacher", "2-inflate/best"),
        (
            "distill: {start_from_teacher: false}\ntext: {pretrained: /nowhere}",
            "no such folder",
            "text.pretrained",
        ),
    ],
)
def test_a_stage_that_cannot_be_trained_is_found_before_the_first_one_is(
    folder: Path, last: str, message: str, where: str
) -> None:
    (folder / "last.yaml").write_text(f"{last}\n")
    (folder / "chain.yaml").write_text(f"chain: [inflate, inflate, {folder / 'last.yaml'}]\n")
    with pytest.raises(XmrError, match=message) as caught:
        jobs.new_job("demo_shared", SHORT, mode="chain.yaml")
    assert where in str(caught.value)
    assert not (folder / "runs").exists()


def test_a_stage_whose_batch_is_too_large_is_found_before_the_first_one_is_trained(
    folder: Path,
) -> None:
    (folder / "last.yaml").write_text("distill: {weight: 1.0}\ntraining: {batch_size: 64}\n")
    (folder / "chain.yaml").write_text(f"chain: [inflate, {folder / 'last.yaml'}]\n")
    short = [item for item in SHORT if not item.startswith("training.batch_size")]
    job = jobs.new_job("demo_shared", short, mode="chain.yaml")
    with pytest.raises(InputError, match="not enough pairs"):
        jobs.train(job, store_of(job, folder))
    assert not list((folder / "runs").rglob("*.yaml"))


def test_last_records_the_settings_that_a_resume_changed(folder: Path) -> None:
    job = jobs.new_job("demo", SHORT)
    store = store_of(job, folder)
    jobs.train(job, store)
    before = load_config(job.run / "last/config.yaml")
    changes = ["training.max_steps=3", "data.workers=2", "evaluation.candidates=7"]
    changes += ["objectives.itc=0.25", "objectives.itm=0.75"]
    again = jobs.resume_job(overrides=changes)
    jobs.train(again, store)
    for file in ("config.yaml", "last/config.yaml"):
        stored = load_config(job.run / file)
        for section in ("data", "objectives", "training", "evaluation"):
            assert getattr(stored, section) == getattr(again.config, section), (file, section)
    assert load_config(job.run / "last/config.yaml").model == before.model


def test_without_a_run_there_is_nothing_to_resume(folder: Path) -> None:
    for output_dir in (None, folder / "none"):
        with pytest.raises(InputError, match="no run to resume"):
            jobs.resume_job(output_dir)


def test_another_number_of_processes_than_configured_is_refused() -> None:
    with pytest.raises(ConfigError, match="number of processes"):
        jobs.new_job("demo", [*SHORT, "training.processes=2"])
    Processes(rank=0, world_size=2).require_world_size(2)  # accepted
