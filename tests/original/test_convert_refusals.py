"""Checkpoints that are damaged, harmful or of another shape are refused, each tensor named."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bagformer_cli.encoders.weight_files import read_pickle
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.models.convert.albef import CheckpointSources, convert_albef, convert_bagformer
from bagformer_cli.models.convert.report import ConversionError, TensorReport
from tests.support.harmful_pickle import MakesFolder
from tests.support.small_checkpoint import published, weights


def damaged(name: str, path: Path) -> Path:
    """A checkpoint that is broken in the way ``name`` says."""
    state = weights()
    if name == "cut off":
        torch.save(published(state), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "cut off, old form":
        torch.save(published(state), path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "empty":
        path.touch()
    elif name == "a web page":
        path.write_text("<!doctype html><html>not found</html>")
    elif name == "a pickle of something else":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif name == "a list":
        torch.save([1, 2], path)
    elif name == "names without tensors":
        torch.save({"model": {"temp": "0.07"}}, path)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut off", "damaged or cut off"),
        ("cut off, old form", "damaged or cut off"),
        ("empty", "not a checkpoint"),
        ("a web page", "holds no weights. \\(found: a file of type HTML"),
        ("a pickle of something else", "not a checkpoint"),
        ("a list", "holds no weights. \\(found: list"),
        ("names without tensors", "holds no weights. \\(found: temp: str"),
    ],
)
def test_a_damaged_file_is_refused(
    name: str, message: str, sources: CheckpointSources, tmp_path: Path
) -> None:
    path = damaged(name, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_bagformer(path, tmp_path / "out", sources)
    assert caught.value.where == str(path)
    assert not (tmp_path / "out").exists()


MKDIR = f"{os.mkdir.__module__}.mkdir"


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    form: str, sources: CheckpointSources, tmp_path: Path
) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"model": weights(), "config": MakesFolder(trace)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"config": MakesFolder(trace)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="code") as caught:
        convert_bagformer(path, tmp_path / "out", sources)
    assert caught.value.found == ("REDUCE, STACK_GLOBAL" if form == "plain pickle" else MKDIR)
    assert not trace.exists()


def test_an_old_form_is_read(sources: CheckpointSources, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(published(weights()), path, _use_new_zipfile_serialization=False)
    assert read_pickle(path)["epoch"] == 5


def refused(state: dict[str, Tensor], sources: CheckpointSources, tmp_path: Path) -> TensorReport:
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(ConversionError, match="not those of the model") as caught:
        convert_bagformer(tmp_path / "other.pth", tmp_path / "out", sources)
    return caught.value.report


def test_every_wrong_tensor_is_named(sources: CheckpointSources, tmp_path: Path) -> None:
    state = weights()
    renamed = {
        "text_proj.weight": "text_projection.weight",
        "visual_encoder.norm.bias": "visual_encoder.last_norm.bias",
        "text_encoder.encoder.layer.2.crossattention.self.key.weight":
            "text_encoder.encoder.layer.2.crossattention.self.keys.weight",
    }  # fmt: skip
    for name, wrong in renamed.items():
        state[wrong] = state.pop(name)
    state["itm_head.weight"] = torch.zeros(3, 64)
    del state["visual_encoder.cls_token"]
    report = refused(state, sources, tmp_path)
    assert {expected: found for found, expected in report.renamed.items()} == renamed
    assert report.guessed == set(renamed.values())
    assert report.missing == ["visual_encoder.cls_token"]
    assert report.misshapen == {"itm_head.weight": ((3, 64), (2, 64))}
    assert report.unknown == []

    other = {"conv1.weight": torch.zeros(3), "fc.bias": torch.zeros(3)}
    report = refused(other, sources, tmp_path)
    assert report.unknown == ["conv1.weight", "fc.bias"]
    assert "temp" in report.missing


def test_another_vocabulary_is_refused(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    with open(sources.vocab, "a", encoding="utf-8") as stream:
        stream.write("新\n")
    with pytest.raises(InputError, match="not the one of the checkpoint"):
        convert_bagformer(checkpoint, tmp_path / "out", sources)


def test_a_folder_with_something_in_it_is_left_alone(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(InputError, match="not empty"):
        convert_bagformer(checkpoint, out, sources)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_missing_files_are_named(
    checkpoint: Path, sources: CheckpointSources, tmp_path: Path
) -> None:
    none = tmp_path / "none"
    for path, given in (
        (none, sources),
        (checkpoint, replace(sources, vocab=none)),
        (checkpoint, replace(sources, lexicon=none)),
    ):
        with pytest.raises(InputError) as caught:
            convert_bagformer(path, tmp_path / "out", given)
        assert str(caught.value.where).endswith("none")
        assert not (tmp_path / "out").exists()


def test_an_albef_of_another_task_is_refused(sources: CheckpointSources, tmp_path: Path) -> None:
    state = weights() | {"text_decoder.bert.embeddings.word_embeddings.weight": torch.zeros(3, 4)}
    del state["itm_head.weight"]
    state["itm_heads.weight"] = torch.zeros(2, 64)
    state["text_proj.bias"] = torch.zeros(3)
    torch.save({"model": state}, tmp_path / "vqa.pth")
    with pytest.raises(ConversionError) as caught:
        convert_albef(tmp_path / "vqa.pth", tmp_path / "out", sources.vocab)
    report = caught.value.report
    assert report.renamed == {"itm_heads.weight": "itm_head.weight"}
    assert report.misshapen == {"text_proj.bias": ((3,), (16,))}
    assert report.unknown == ["text_decoder.bert.embeddings.word_embeddings.weight"]
