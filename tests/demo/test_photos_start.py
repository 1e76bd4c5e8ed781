"""The demo on photographs starts from Chinese-CLIP where a hub or its cache has it."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from bagformer_cli import hub
from bagformer_cli.api import load
from bagformer_cli.config import load_config
from bagformer_cli.demo.photos import fetch, start
from bagformer_cli.demo.photos.pipeline import run_photos
from bagformer_cli.demo.photos.start import (
    CHINESE_CLIP,
    PACKAGED,
    Start,
    choose_start,
    write_packaged_model,
)
from bagformer_cli.errors import CheckpointError
from tests.demo.test_photos import fake_clients
from tests.support.chinese_clip import save_tiny
from tests.support.remarks import Remarks

CAPTIONS = [("food", f"第{number}种水果。") for number in range(90)]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reach no hub; its cache is an empty folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XMR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "_run", fake_clients(tmp_path, CAPTIONS))


def cache_chinese_clip(cache: Path) -> None:
    """Put a tiny Chinese-CLIP where the hub's client keeps the real one."""
    folder = cache / f"models--{CHINESE_CLIP.replace('/', '--')}"
    save_tiny(folder / "snapshots" / "1")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")


def test_a_cached_chinese_clip_is_searched_zero_shot_and_trained(tmp_path: Path) -> None:
    cache_chinese_clip(tmp_path / "hub")
    notes = Remarks()
    report = run_photos(tmp_path, progress=notes)
    assert report["model"] == CHINESE_CLIP
    assert [*report["rows"]] == ["zero-shot", "trained"]
    assert report["rows"]["trained"]["n_queries"] == 108
    assert (tmp_path / "photos.html").stat().st_size > 10_000
    assert sum("Encoded once" in note for note in notes.notes) == 1
    # Towers stay those of the Chinese-CLIP, only projections are trained.
    before, after = (load(folder).model.state_dict()
                     for folder in (tmp_path / "models" / CHINESE_CLIP.replace("/", "-"),
                                    Path(report["checkpoint"]).parent / "last"))  # fmt: skip
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    changed.discard("temperature")  # 1 / exp(4.6052) is just below its minimum of 0.01
    assert changed == {"dual.text_proj.weight", "dual.vision_proj.weight"}


def test_without_a_hub_the_packaged_towers_are_taken_with_one_remark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "_packaged", lambda *_: "made of packages")
    notes = Remarks()
    assert choose_start(None, tmp_path, 0, notes) == "made of packages"
    assert len(notes.notes) + len(notes.warnings) == 1
    assert "--model" in notes.notes[0]
    assert choose_start(PACKAGED, tmp_path, 0, notes) == "made of packages"
    assert len(notes.notes) == 1  # a choice needs no remark


def test_a_reachable_hub_is_asked_for_chinese_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "require_hub", lambda *_: None)
    monkeypatch.setattr(start, "_chinese_clip", lambda name, *_: Start(name, tmp_path, None))
    assert choose_start(None, tmp_path, 0).name == CHINESE_CLIP


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    save_tiny(tmp_path / "mine")
    made = choose_start(str(tmp_path / "mine"), tmp_path / "out", 0)
    assert made.folder.parent == tmp_path / "out/models"
    assert made.folder.name.endswith("-mine")
    assert (made.folder / "model.safetensors").is_file()


def test_a_named_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hub"):
        choose_start("someone/no-such-clip", tmp_path, 0)
    assert not (tmp_path / "models").exists()
    assert hub.cached_file("someone/no-such-clip", "config.json") is None


@pytest.mark.net
def test_the_packaged_model_is_a_folder_that_needs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[int] = []
    monkeypatch.setattr(start, "project_classes", lambda _, names, *__: named.append(len(names)))
    write_packaged_model(tmp_path / "photos")
    assert named == [1000]
    config = load_config(tmp_path / "photos" / "config.yaml", stored=True)
    assert config.text.pretrained == "models/e5-small"  # not the folder that is deleted
    retriever = load(tmp_path / "photos")
    assert retriever.encode_texts(["笔记本电脑"]).values.shape == (1, 384)
