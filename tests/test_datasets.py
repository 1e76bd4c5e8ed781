"""The dataset of a run is found from anywhere, and never replaced by the demo."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from bagformer_cli.data.attributes import header_line
from bagformer_cli.datasets import is_drawn, own_dataset, resolve, saw_drawn_pictures_only
from bagformer_cli.errors import InputError
from tests.support.datasets import write_split
from tests.support.remarks import Remarks


def model(run: Path, dataset: str, started_in: Path | None = None) -> Path:
    """The model folder of a run that names a dataset.

    Args:
        run: The run folder.
        dataset: Value of ``data.dataset``.
        started_in: The directory in which the run was started; None: the run's grandparent.
    """
    best = run / "best"
    best.mkdir(parents=True)
    for folder in (best, run):
        (folder / "config.yaml").write_text(f"data: {{dataset: {dataset}}}\n")
    started = {"directory": str(started_in or run.resolve().parents[1]), "run": str(run.resolve())}
    (run / "run.json").write_text(json.dumps({"started": started, "resumed": []}))
    return best


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_dataset_is_named_as_it_was(project: Path) -> None:
    write_split(project / "shop", "train")
    assert own_dataset(model(project / "runs/a", "shop")) == "shop"
    assert own_dataset(model(project / "runs/b", str(project / "shop"))) == str(project / "shop")


def test_the_dataset_of_another_project_is_found_beside_its_run(
    project: Path, tmp_path: Path
) -> None:
    write_split(project / "shop", "train")  # another shop
    write_split(tmp_path / "other/shop", "train")
    best = model(tmp_path / "other/runs/a", "shop")
    assert own_dataset(best) == str(tmp_path / "other/shop")
    assert own_dataset(Path("../other/runs/a/best")) == str(tmp_path / "other/shop")


def test_a_folder_of_the_same_name_elsewhere_is_not_taken_for_it(
    project: Path, tmp_path: Path
) -> None:
    write_split(project / "shop", "train")
    best = model(tmp_path / "scratch/a", "shop", started_in=tmp_path / "other")
    with pytest.raises(InputError, match="not there"):
        own_dataset(best)
    write_split(tmp_path / "other/shop", "train")
    assert own_dataset(best) == own_dataset(best.parent) == str(tmp_path / "other/shop")


@pytest.mark.parametrize("part", ["the run", "the model", "a run that names another folder"])
@pytest.mark.parametrize("name", ["shop", "../project/shop", "ABSOLUTE", "demo"])
def test_a_model_from_elsewhere_chooses_no_dataset(
    project: Path, tmp_path: Path, part: str, name: str
) -> None:
    shop = write_split(project / "shop", "train").path
    dataset = str(shop) if name == "ABSOLUTE" else name
    best = model(tmp_path / "theirs/runs/a", dataset, started_in=project)
    if part == "the run":
        found = copytree(best.parent, project / "a")
    elif part == "the model":
        found = copytree(best, project / "a")
    else:
        record = {"started": {"directory": "/home/them"}, "resumed": []}
        (best.parent / "run.json").write_text(json.dumps(record))
        found = best
    with pytest.raises(InputError, match="not trained in this place") as caught:
        own_dataset(found)
    assert caught.value.found == dataset
    assert "--dataset" in (caught.value.hint or "")


def test_records_of_older_versions_do_not_name_the_run(project: Path) -> None:
    write_split(project / "shop", "train")
    best = model(project / "runs/a", "shop")
    record = {"started": {"directory": str(project)}, "resumed": []}
    (best.parent / "run.json").write_text(json.dumps(record))
    assert own_dataset(best) == "shop"


def test_a_dataset_that_is_gone_is_named(project: Path) -> None:
    best = model(project / "runs/a", "shop")
    with pytest.raises(InputError, match="not there") as caught:
        own_dataset(best)
    assert caught.value.found == "shop"
    assert "--dataset" in (caught.value.hint or "")
    (project / "shop").mkdir()  # a folder without a dataset is none
    with pytest.raises(InputError):
        own_dataset(best)


def test_a_built_in_name_stays_a_name(project: Path, tmp_path: Path) -> None:
    assert own_dataset(model(project / "runs/a", "demo")) == "demo"
    assert own_dataset(model(project / "runs/b", "muge")) == "muge"
    write_split(tmp_path / "other/data/demo", "train")
    found = own_dataset(model(tmp_path / "other/runs/a", "demo"))
    assert resolve(found).path == tmp_path / "other/data/demo"


@pytest.mark.parametrize("name", ["demo", "muge"])
def test_of_two_datasets_of_one_name_the_taken_one_is_named(project: Path, name: str) -> None:
    remarks = Remarks()
    write_split(project / "data" / name, "train")
    assert resolve(name, remarks).path == Path("data") / name
    assert remarks.warnings == []
    write_split(project / name, "train")
    assert resolve(name, remarks).path == Path(name)
    (warning,) = remarks.warnings
    assert f"{name}/ was taken" in warning
    assert f"--dataset data/{name}" in warning


def test_the_run_says_where_its_dataset_is_now(project: Path) -> None:
    best = model(project / "runs/a", "shop")
    write_split(project / "moved", "train")
    (best.parent / "config.yaml").write_text("data: {dataset: moved}\n")  # by a later resume
    assert own_dataset(best) == "moved"


def test_a_model_of_drawn_images_is_known(project: Path) -> None:
    shop = write_split(project / "shop", "train").path
    best = model(project / "runs/a", "shop")
    assert not saw_drawn_pictures_only(best)
    (shop / "attributes.jsonl").write_text(header_line({}))  # a shop may have attributes, too
    assert not saw_drawn_pictures_only(best)
    (shop / "attributes.jsonl").write_text(header_line({}, seed=0))
    assert saw_drawn_pictures_only(best)
    assert is_drawn(shop)
    assert saw_drawn_pictures_only(model(project / "runs/b", "demo"))
    assert not saw_drawn_pictures_only(model(project / "runs/c", "gone"))
