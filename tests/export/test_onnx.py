"""``xmr export onnx`` and ``bagformer_cli.runtime``: the scores of the model, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bagformer_cli import runtime
from bagformer_cli.api import Retriever
from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.export.onnx_folder import export_onnx
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.models.item_encoder import ModelEncoder
from tests.support.exported import TITLES, exported, images, model_of, scores_without_torch

Made = tuple[RetrievalModel, Path, Path]


def assert_same_scores(made: Made, count: int, tolerance: float = 1e-4) -> None:
    model, _, folder = made
    ours, theirs = Retriever(model), runtime.load(folder)
    want = ours.score(ours.encode_images(images(count)), ours.encode_texts(TITLES[:count]))
    got = theirs.score(theirs.encode_images(images(count)), theirs.encode_texts(TITLES[:count]))
    assert got.title_vectors.tolist() == want.title_vectors.tolist()
    assert got.image_vectors.tolist() == want.image_vectors.tolist()
    for name in ("t2i", "i2t", "t2i_mean", "i2t_mean"):
        found, wanted = getattr(got, name), getattr(want, name).numpy()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("count", [1, 3, 17])
def test_the_scores_are_the_models(bagwise: Made, count: int) -> None:
    assert_same_scores(bagwise, count)


def test_every_vector_is_the_models(bagwise: Made) -> None:
    model, _, folder = bagwise
    ours, theirs = Retriever(model), runtime.load(folder)
    for want, got in (
        (ours.encode_texts(TITLES), theirs.encode_texts(TITLES)),
        (ours.encode_images(images()), theirs.encode_images(images())),
    ):
        np.testing.assert_array_equal(got.offsets, want.offsets.numpy())
        np.testing.assert_allclose(got.values, want.values.numpy(), atol=1e-5)


def test_image_files_are_decoded_as_for_the_model(bagwise: Made, tmp_path: Path) -> None:
    """A palette, alpha, an orientation and a JPEG: what a plain `Image.open` reads otherwise."""
    model, _, folder = bagwise
    clear = Image.new("RGBA", (30, 20), (200, 30, 30, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 15, 20))
    clear.save(tmp_path / "alpha.png")
    images(1)[0].quantize(8).save(tmp_path / "palette.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    images(1)[0].save(tmp_path / "turned.jpg", exif=turned)
    paths = sorted(tmp_path.iterdir())
    want = Retriever(model).encode_images(paths).values.numpy()
    np.testing.assert_allclose(runtime.load(folder).encode_images(paths).values, want, atol=1e-5)


def test_the_bags_are_the_models(bagwise: Made) -> None:
    model, _, folder = bagwise
    retriever = runtime.load(folder)
    for title in TITLES:
        assert retriever.bags(title) == Retriever(model).bags(title)


def test_the_folder_names_its_model(bagwise: Made) -> None:
    model, _, folder = bagwise
    manifest = json.loads((folder / "export.json").read_text("utf-8"))
    assert manifest["model"] == fingerprint(model)
    assert manifest["precision"] == "fp32"
    assert manifest["image_size"] == model.config.image.size


def test_the_runtime_imports_neither_torch_nor_transformers_nor_timm(
    bagwise: Made, tmp_path: Path
) -> None:
    model, _, folder = bagwise
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for path, image in zip(paths, images(2), strict=True):
        image.save(path)
    titles = ["红色碎花连衣裙", "女包"]
    ours = Retriever(model)
    want = ours.score(ours.encode_images(paths), ours.encode_texts(titles)).t2i
    got = scores_without_torch(folder, paths, titles)
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_the_runtime_is_imported_in_half_a_second() -> None:
    """Processor time, because the machine may be busy: about 0.2 s."""
    code = "import time, bagformer_cli.runtime; print(time.process_time())"
    command = [sys.executable, "-c", code]
    times = [float(subprocess.check_output(command, text=True)) for _ in range(3)]
    assert min(times) < 0.5


def test_wrong_inputs_are_refused_as_by_the_model(bagwise: Made) -> None:
    retriever = runtime.load(bagwise[2])
    with pytest.raises(InputError, match="empty"):
        retriever.encode_texts(["红色", " "])
    with pytest.raises(InputError, match="not an image"):
        retriever.encode_images([3])
    with pytest.raises(InputError, match="not vectors"):
        retriever.score(["a"], ["b"])  # type: ignore[arg-type]


def test_no_items_at_all_have_no_scores(bagwise: Made) -> None:
    retriever = runtime.load(bagwise[2])
    scores = retriever.score(retriever.encode_images([]), retriever.encode_texts(["女包"]))
    assert scores.t2i.shape == (1, 0)
    assert scores.i2t.shape == (0, 1)


def test_other_folders_are_refused(bagwise: Made, tmp_path: Path) -> None:
    _, model_folder, folder = bagwise
    with pytest.raises(CheckpointError, match="no exported model"):
        runtime.load(model_folder)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "text.onnx").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"(?s)text\.onnx.*no graph that"):
        runtime.load(tmp_path)
    (tmp_path / "image.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)incomplete.*image\.onnx"):
        runtime.load(tmp_path)
    (tmp_path / "export.json").write_text("{}", "utf-8")
    (tmp_path / "image.onnx").touch()
    with pytest.raises(CheckpointError, match="damaged"):
        runtime.load(tmp_path)


def test_regions_and_compat_are_refused(tmp_path: Path) -> None:
    model = model_of()
    model.config.compat = "bagformer"
    with pytest.raises(CheckpointError, match="compat"):
        export_onnx(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    regions = model_of("model.shared.cells=3", "image.regions.width=6", "image.regions.maximum=4")
    with pytest.raises(CheckpointError, match="regions"):
        export_onnx(regions, tmp_path / "out")


def assert_same_pair_scores(made: Made, count: int, tolerance: float = 1e-4) -> None:
    """The cross-encoder's scores of pairs, of one title with all images, and the other way."""
    model, _, folder = made
    retriever, size = runtime.load(folder), model.config.image.size
    pixels = np.stack([resize(decode(image), size) for image in images(count)])
    for titles, first in ((TITLES[:count], 0), (TITLES[:1], 0), (TITLES[:count], count - 1)):
        pictures = images(count)[first:]
        if len(titles) > 1 and len(pictures) not in (1, len(titles)):
            continue
        want = ModelEncoder(model).score_pairs(titles, pixels[first:])
        got = retriever.rerank(titles, pictures)
        assert got.shape == (max(len(titles), len(pictures)),)
        np.testing.assert_allclose(got, want, atol=tolerance, rtol=0)


@pytest.mark.parametrize("count", [1, 3, 17])
def test_the_cross_encoder_is_the_models(bagwise: Made, count: int) -> None:
    assert (bagwise[2] / "cross.onnx").is_file()
    assert_same_pair_scores(bagwise, count)


def test_pairs_need_as_many_titles_as_images(bagwise: Made) -> None:
    retriever = runtime.load(bagwise[2])
    with pytest.raises(InputError, match="as many titles as images"):
        retriever.rerank(TITLES[:3], images(2))
    assert len(retriever.rerank([], [])) == 0


def test_a_missing_cross_encoder_is_named(bagwise: Made, tmp_path: Path) -> None:
    for file in bagwise[2].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cross.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)incomplete.*cross\.onnx"):
        runtime.load(tmp_path)


RERANKERS: dict[str, tuple[str | None, list[str]]] = {
    "bags as tokens": (None, ["model.bag_fusion=early"]),
    "joint encoder": (None, ["model.cross.fusion=joint"]),
    "MaxSim of tokens": (None, ["model.cross.token_maxsim=true"]),
    "one BERT for both sides": (None, ["model.shared.cells=3"]),
    "captioner": ("captioner", []),
    "captioner, finer cells": ("captioner", ["model.cross.finer=2"]),
    "captioner, a convolutional backbone's maps": (
        "captioner",
        [
            "model.cross.finer=2",
            "image.backbone=resnet10t",
            "image.options={channels: [8, 12, 16, 24], output_stride: 16, stem_width: 8}",
            "image.size=64",
        ],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RERANKERS)
def test_every_kind_of_cross_encoder(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    mode, overrides = RERANKERS[name]
    made = exported(tmp_path_factory.mktemp, *overrides, mode=mode)
    for count in (1, 3, 17):
        assert_same_scores(made, count)
        assert_same_pair_scores(made, count)


@pytest.mark.slow
def test_an_untrained_cross_encoder_is_not_exported(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = exported(tmp_path_factory.mktemp, "model.cross=null", "objectives.itm=0")
    assert not (made[2] / "cross.onnx").exists()
    retriever = runtime.load(made[2])
    assert not retriever.can_rerank
    with pytest.raises(CheckpointError, match="no cross-encoder"):
        retriever.rerank(TITLES[:2], images(2))


VARIANTS = {
    "bagwise, early fusion": ["model.bag_fusion=early"],
    "tokenwise": ["model.interaction=tokenwise"],
    "cls": ["model.interaction=cls"],
    "keep 1": ["model.keep=1"],
    "keep 3": ["model.keep=3"],
    "keep 3, early fusion": ["model.keep=3", "model.bag_fusion=early"],
    "code tokens": ["model.codes=2"],
    "one BERT for both sides": ["model.shared.cells=3"],
    "one BERT, code tokens": ["model.shared.cells=3", "model.codes=2"],
    "head": ["model.interaction=cls", "model.head={layers: 1, heads: 2, feed_forward: 48}"],
    "alignment": ["model.interaction=cls", "model.alignment=bagwise"],
    "mean of the title": ["text.summary=mean"],
    "mean of the title, early fusion": ["text.summary=mean", "model.bag_fusion=early"],
    "bag of words": ["text.encoder=words"],
    "no class token": ["model.image_first=false"],
    "own mean": ["image.mean=[0.5, 0.5, 0.5]", "image.std=[0.5, 0.5, 0.5]"],
    "convolutional": [
        "image.backbone=resnet10t",
        "image.options={channels: [8, 12, 16, 24], output_stride: 8, stem_width: 8}",
        "image.size=32",
    ],
    "checkpointed": ["model.gradient_checkpointing=true"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_model(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    made = exported(tmp_path_factory.mktemp, *VARIANTS[name])
    for count in (1, 3, 17):
        assert_same_scores(made, count)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp16", 0.02), ("int8-dynamic", 0.3), ("int8-static", 0.6)]
)
def test_fewer_bits_change_scores_a_little(
    precision: str, tolerance: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = exported(tmp_path_factory.mktemp, precision=precision)  # type: ignore[arg-type]
    assert_same_scores(made, 17, tolerance)
    assert_same_pair_scores(made, 17, tolerance)
    if precision == "fp16":
        size = sum(file.stat().st_size for file in made[2].glob("text.onnx*"))
        assert size < 0.9 * sum(p.numel() * 4 for p in made[0].dual.text_encoder.parameters())
    else:  # word embeddings, most of a small model, stay float32
        import onnx

        types = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        weights = onnx.load(str(made[2] / "text.onnx")).graph.initializer
        assert any(one.data_type in types and len(one.dims) == 2 for one in weights)


def test_maxsim_does_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from bagformer_cli.interaction.maxsim import maxsim
    from bagformer_cli.runtime import vectors
    from bagformer_cli.vectors.multi_vectors import MultiVectors

    random = np.random.default_rng(1)
    sides = []
    for lengths in ([3, 1, 7], [2, 9, 1, 4, 4]):
        offsets = np.cumsum([0, *lengths])
        sides.append(
            vectors.Vectors(random.normal(size=(offsets[-1], 6)).astype(np.float32), offsets)
        )
    torches = [MultiVectors(torch.from_numpy(s.values), torch.from_numpy(s.offsets)) for s in sides]
    want = maxsim(*torches)
    for block in (1, 20, 1 << 20):
        monkeypatch.setattr(vectors, "BLOCK", block)
        got = vectors.maxsim(*sides)
        np.testing.assert_allclose(got.t2i, want[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(got.i2t, want[1].numpy(), atol=1e-5)
