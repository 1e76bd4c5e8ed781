"""Models of other libraries are ranked as their own library ranks them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bagformer_cli.adapters.names import library_of, open_other
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.evaluation.sources import AdaptedModel
from bagformer_cli.models.scorers import pooled_maxsim
from tests.support.datasets import picture, write_split
from tests.support.other_models import (
    TITLES,
    many_vectors,
    save_dual,
    save_open_clip,
    save_sentence,
)

QUERIES = [(n, title, (100 + n,)) for n, title in enumerate(TITLES)]
IMAGES = [(100 + n, picture(n)) for n in range(9)]
KINDS = ["clip", "siglip", "chinese_clip", "open_clip", "st"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MugeFolder:
    return write_split(tmp_path_factory.mktemp("data"), "valid", QUERIES, IMAGES)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    found = {kind: save_dual(kind, folder / kind) for kind in ("clip", "siglip", "chinese_clip")}
    found["open_clip"] = save_open_clip(folder / "open_clip")
    found["st"] = save_sentence(folder / "st", found["clip"])
    return found


def pictures() -> list[Image.Image]:
    from io import BytesIO

    return [Image.open(BytesIO(data)).convert("RGB") for _, data in IMAGES]


def own_scores(kind: str, folder: Path) -> NDArray[np.float32]:
    """Cosines [titles, images] as the documentation of each library computes them."""
    if kind == "open_clip":
        import open_clip

        name = f"local-dir:{folder}"
        model, _, preprocess = open_clip.create_model_and_transforms(name)
        model.eval()
        pixels = torch.stack([preprocess(image) for image in pictures()])
        with torch.no_grad():
            images = model.encode_image(pixels, normalize=True)
            texts = model.encode_text(open_clip.get_tokenizer(name)(TITLES), normalize=True)
        return (texts @ images.T).numpy()
    if kind == "st":
        from sentence_transformers import SentenceTransformer

        encoder = SentenceTransformer(str(folder), device="cpu")
        return encoder.similarity(encoder.encode(TITLES), encoder.encode(pictures())).numpy()
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    padding: Any = {"padding": True}
    if kind == "siglip":
        padding = {"padding": "max_length", "max_length": 12}
    inputs = dict(AutoTokenizer.from_pretrained(folder)(TITLES, return_tensors="pt", **padding))
    inputs |= AutoImageProcessor.from_pretrained(folder)(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        found = model(**inputs)
    return (found.text_embeds @ found.image_embeds.T).numpy()


def recalls(scores: NDArray[np.float32]) -> dict[str, float]:
    """Recall from title to image: title n is answered by image n."""
    better = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return {f"recall@{k}": 100 * float((better < k).mean()) for k in (1, 5, 10)}


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_recall_are_those_of_the_library(
    kind: str, models: dict[str, Path], data: MugeFolder, xmr: Callable[..., Any]
) -> None:
    wanted = own_scores(kind, models[kind])
    library = kind if kind in ("open_clip", "st") else "hf"
    source = AdaptedModel(open_other(library, str(models[kind]), "cpu"))
    found = source.score(source.encode(source.open(data, "valid"), 4))[0]
    assert np.abs(found - wanted).max() < 1e-5
    assert wanted.std() > 0.01  # the tiny model tells images apart
    run = xmr("eval", "--model", models[kind], "--dataset", data.path, "--json")
    assert run.code == 0, run.err
    report = run.json()
    figures = report["stages"]["recall"]["text_to_image"]
    assert {name: figures[name] for name in recalls(wanted)} == pytest.approx(recalls(wanted))
    assert report["library"] == source.other.package


def test_the_licence_is_that_of_the_readme(models: dict[str, Path]) -> None:
    assert open_other("hf", str(models["clip"]), "cpu").licence == "apache-2.0"


def test_a_folder_says_its_library(models: dict[str, Path], tmp_path: Path) -> None:
    found = {kind: library_of(str(folder)) for kind, folder in models.items()}
    assert {kind: one[0] for kind, one in found.items() if one} == {
        "clip": "hf", "siglip": "hf", "chinese_clip": "hf", "open_clip": "open_clip", "st": "st",
    }  # fmt: skip
    for own in (["config.yaml", "config.json"], ["config.yaml"]):
        for name in own:
            (tmp_path / name).touch()
        assert library_of(str(tmp_path)) is None
    (tmp_path / "modules.json").touch()  # as a model that xmr exported
    assert library_of(str(tmp_path)) == ("st", str(tmp_path))


@pytest.mark.parametrize("kind", ["clip", "open_clip", "st"])
def test_weights_that_no_file_holds_are_an_error(
    kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(models[kind], folder)
    (file,) = folder.rglob("*.safetensors")
    weights = load_file(file)
    del weights[next(name for name in weights if "text" in name or "token" in name)]
    save_file(weights, file, {"format": "pt"})
    library = kind if kind in ("open_clip", "st") else "hf"
    with pytest.raises(CheckpointError):
        open_other(library, str(folder), "cpu")


def test_a_model_with_code_of_its_own_is_refused(
    models: dict[str, Path], tmp_path: Path, data: MugeFolder, xmr: Callable[..., Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(models["clip"], folder)
    record = json.loads((folder / "config.json").read_text())
    record |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    run = xmr("eval", "--model", f"hf:{folder}", "--dataset", data.path)
    assert run.code == 2
    assert "does not run code of a model" in run.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hf:nobody/no-such-model", "the hub cannot be reached"),
        ("st:nobody/no-such-model", "the hub cannot be reached"),
        ("open_clip:hf-hub:nobody/no-such-model", "the hub cannot be reached"),
        ("open_clip:ViT-B-32", "Say which weights"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "the hub cannot be reached"),
        ("open_clip:ViT-B-99/x", "no model of this name"),
        ("hf:", "The name of the model is missing"),
        ("OFA-Sys/chinese-clip-vit-base-patch16", "does not say of which library"),
    ],
)
def test_names_that_cannot_be_loaded(
    spec: str, said: str, data: MugeFolder, xmr: Callable[..., Any]
) -> None:
    run = xmr("eval", "--model", spec, "--dataset", data.path)
    assert run.code == 2
    assert said in run.err.replace("\n", " ").replace("  ", " ")


def test_a_text_encoder_alone_is_no_dual_encoder(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="does not encode both"):
        open_other("hf", str(tmp_path / "bert"), "cpu")


def test_nothing_is_reranked(models: dict[str, Path], data: MugeFolder, xmr: Any) -> None:
    run = xmr("eval", "--model", models["clip"], "--dataset", data.path, "--rerank", "5")
    assert run.code == 2
    assert "the recall stage is measured" in run.err.replace("\n", " ")
    with pytest.raises(InputError):
        library_of("")


def test_models_and_vectors_are_compared_and_exported(
    models: dict[str, Path], data: MugeFolder, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    files = tmp_path / "vectors"
    run = xmr("export", "vectors", models["siglip"], files, "--dataset", data.path)
    assert run.code == 0, run.err
    run = xmr("compare", f"hf:{models['clip']}", files, "--dataset", data.path, "--json")
    assert run.code == 0, run.err
    rows = run.json()["runs"]
    for kind, row in zip(("clip", "siglip"), rows, strict=True):
        wanted = recalls(own_scores(kind, models[kind]))
        assert {name: row["text_to_image"][name] for name in wanted} == pytest.approx(wanted)
        assert row["vectors"] == {"title": 1, "image": 1}
    assert "difference" in rows[1]
    run = xmr("compare", files, models["clip"])
    assert run.code == 2
    assert "is not known" in run.err


def test_sentence_transformers_with_a_folder_for_each_module(
    models: dict[str, Path], tmp_path: Path
) -> None:
    """Models of earlier versions have this layout, clip-ViT-B-32 for example."""
    folder = tmp_path / "older"
    inner = folder / "0_CLIPModel"
    shutil.copytree(models["st"], inner)
    (inner / "modules.json").unlink()
    (inner / "config_sentence_transformers.json").rename(
        folder / "config_sentence_transformers.json"
    )
    kind = "sentence_transformers.sentence_transformer.modules.CLIPModel"
    record = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(record))
    older, newer = (open_other("st", str(one), "cpu") for one in (folder, models["st"]))
    assert torch.equal(older.encode_texts(TITLES).values, newer.encode_texts(TITLES).values)
    images = older.encode_images(pictures()).values
    assert torch.equal(images, newer.encode_images(pictures()).values)


def test_a_model_of_dot_products_is_ranked_by_them(
    models: dict[str, Path], data: MugeFolder, tmp_path: Path
) -> None:
    """Its vectors keep their lengths, which change the order."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path / "dot"
    encoder = SentenceTransformer(str(models["st"]), device="cpu", similarity_fn_name="dot")
    with torch.no_grad():
        for name, value in encoder.named_parameters():
            if name.endswith("visual_projection.weight"):
                value *= torch.linspace(0.2, 5, value.shape[1])
    encoder.save_pretrained(str(folder))
    encoder = SentenceTransformer(str(folder), device="cpu")
    assert encoder.similarity_fn_name == "dot"
    texts, images = encoder.encode_query(TITLES), encoder.encode_document(pictures())
    wanted = encoder.similarity(texts, images).numpy()
    source = AdaptedModel(open_other("st", str(folder), "cpu"))
    found = source.score(source.encode(source.open(data, "valid"), 4))[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    assert (found.argsort(axis=1) == wanted.argsort(axis=1)).all()
    cosines = wanted / np.linalg.norm(images, axis=1)
    assert (cosines.argsort(axis=1) != wanted.argsort(axis=1)).any()


def test_many_vectors_of_sentence_transformers_are_scored_as_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sentence_transformers

    encoder = many_vectors(tmp_path)
    (tmp_path / "modules.json").write_text("[]")
    record = json.dumps({"model_type": "MultiVectorEncoder"})
    (tmp_path / "config_sentence_transformers.json").write_text(record)
    monkeypatch.setattr(sentence_transformers, "MultiVectorEncoder", lambda *_, **__: encoder)
    other = open_other("st", str(tmp_path), "cpu")
    texts, images = other.encode_texts(TITLES), other.encode_images(pictures())
    wanted = encoder.similarity(encoder.encode_query(TITLES), encoder.encode_document(pictures()))
    assert torch.allclose(pooled_maxsim(texts, images)[0], wanted, atol=1e-4)
    assert images.lengths.tolist() == [5] * len(IMAGES)  # class token and 2 x 2 patches
    assert len(set(texts.lengths.tolist())) > 1
