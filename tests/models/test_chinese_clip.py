"""Chinese-CLIP: converted models score as transformers' own does, and can be fine-tuned."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ChineseCLIPModel

from bagformer_cli.api import Retriever
from bagformer_cli.data.batches import pixels_of
from bagformer_cli.datasets import saw_drawn_pictures_only
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.models.checkpoint import load_model
from bagformer_cli.models.convert.folder import convert_chinese_clip
from bagformer_cli.models.convert.report import ConversionError
from tests.support.chinese_clip import (
    DIM,
    SIZE,
    TITLES,
    original_names,
    ours,
    save_original,
    theirs,
)
from tests.support.datasets import picture, write_split
from tests.support.exported import scores_without_torch


def test_one_vector_scores_as_transformers_does(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image], tmp_path: Path
) -> None:
    folder, model = tiny_clip
    expected = theirs(model, folder, images)
    assert expected.std() > 0.05  # the titles and images differ
    converted = convert_chinese_clip(str(folder), tmp_path / "out")
    torch.testing.assert_close(ours(converted.model, images), expected, atol=1e-5, rtol=0)
    loaded = load_model(tmp_path / "out")
    torch.testing.assert_close(ours(loaded, images), expected, atol=1e-5, rtol=0)
    assert loaded.temperature.item() == pytest.approx(0.01, rel=1e-3)
    assert loaded.config.text.max_tokens == 52
    assert converted.report.complete
    assert converted.report.total == len(model.state_dict())


def test_the_original_layout_gives_the_same_model(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image], tmp_path: Path
) -> None:
    folder, model = tiny_clip
    tensors = original_names(model)
    save_original(tensors, tmp_path / "clip.pt")
    converted = convert_chinese_clip(
        str(tmp_path / "clip.pt"), tmp_path / "out", vocab=folder / "vocab.txt"
    )
    expected = theirs(model, folder, images)
    torch.testing.assert_close(ours(converted.model, images), expected, atol=1e-5, rtol=0)
    assert converted.report.ignored == {
        "the pooled state is not used": ["bert.pooler.dense.weight"]
    }
    assert converted.report.total == len(tensors)


def test_a_resnet_with_attention_pooling_scores_as_open_clip_does(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image], tmp_path: Path
) -> None:
    from open_clip.modified_resnet import ModifiedResNet

    folder, model = tiny_clip
    torch.manual_seed(1)
    resnet = ModifiedResNet([3, 4, 6, 3], DIM, heads=4, image_size=64, width=8)
    pixels = torch.stack([pixels_of(image, 64) for image in images])
    for _ in range(20):  # so that batch normalisation has statistics, and outputs differ
        resnet(pixels)
    resnet.eval()
    tensors = {k: v for k, v in original_names(model).items() if not k.startswith("visual.")}
    tensors |= {f"visual.{name}": value for name, value in resnet.state_dict().items()}
    save_original(tensors, tmp_path / "rn50.pt")
    converted = convert_chinese_clip(
        str(tmp_path / "rn50.pt"), tmp_path / "out", vocab=folder / "vocab.txt"
    )
    assert converted.model.config.image.backbone == "resnet50_clip"
    with torch.no_grad():
        found = resnet(pixels)
        expected = torch.nn.functional.normalize(found, dim=-1)
        encoded = Retriever(load_model(tmp_path / "out")).encode_images(images)
    torch.testing.assert_close(encoded.values, expected, atol=1e-5, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 1e-3


@pytest.mark.parametrize("interaction", ["tokenwise", "bagwise"])
def test_tokens_and_patches_pass_the_same_projections(
    tiny_clip: tuple[Path, ChineseCLIPModel],
    images: list[Image.Image],
    tmp_path: Path,
    interaction: Any,
) -> None:
    folder, model = tiny_clip
    retriever = Retriever(
        convert_chinese_clip(str(folder), tmp_path / "out", interaction=interaction).model
    )
    vectors = retriever.encode_images(images)
    assert vectors.lengths.tolist() == [1 + (SIZE // 8) ** 2] * len(images)
    with torch.no_grad():
        pixels = torch.stack([pixels_of(image, SIZE) for image in images])
        states = model.vision_model.post_layernorm(model.vision_model(pixels).last_hidden_state)
        expected = torch.nn.functional.normalize(model.visual_projection(states), dim=-1)
    torch.testing.assert_close(vectors.values.view_as(expected), expected, atol=1e-5, rtol=0)
    titles = retriever.encode_texts(TITLES)
    assert titles.values.shape[1] == DIM
    assert titles.lengths.tolist()[2] == 1  # 帽


# -------------------------------------------------------------------------- accounting and errors


def test_every_wrong_tensor_is_named(
    tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    folder, model = tiny_clip
    tensors = original_names(model)
    block = "visual.transformer.resblocks.1"
    renamed = {
        "visual.ln_post.weight": "visual.ln_post.gain",
        "bert.embeddings.word_embeddings.weight": "bert.embeddings.word_embedding.weight",
        f"{block}.mlp.c_fc.bias": "x",
    }
    for name, wrong in renamed.items():
        tensors[wrong] = tensors.pop(name)
    del tensors["visual.class_embedding"]
    tensors["text_projection"] = torch.zeros(128, DIM + 1)
    save_original(tensors, tmp_path / "broken.pt")
    out = tmp_path / "out"
    with pytest.raises(ConversionError) as caught:
        convert_chinese_clip(str(tmp_path / "broken.pt"), out, vocab=folder / "vocab.txt")
    report = caught.value.report
    assert {expected: found for found, expected in report.renamed.items()} == renamed
    assert report.missing == ["visual.class_embedding"]
    assert report.misshapen == {"text_projection": ((128, DIM + 1), (128, DIM))}
    assert report.unknown == []
    assert not out.exists()

    run = xmr("convert", "chinese-clip", tmp_path / "broken.pt", out, "--vocab",
              folder / "vocab.txt", "--json")  # fmt: skip
    assert run.code == 2
    assert "3 renamed, 1 missing, 1 of another shape" in run.err
    found = run.json()["tensors"]
    assert found["missing"] == ["visual.class_embedding"]
    assert len(found["renamed"]) == 3
    shown = xmr("convert", "chinese-clip", tmp_path / "broken.pt", out, "--vocab",
                folder / "vocab.txt")  # fmt: skip
    for name in (*renamed, *renamed.values(), "visual.class_embedding", "[128, 25]"):
        assert name in shown.out


def test_quantised_weights_are_refused(
    tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path
) -> None:
    """Without their scales, whole numbers would become a model that guesses."""
    folder, model = tiny_clip
    tensors = original_names(model)
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    tensors[name] = (tensors[name] * 100).to(torch.int8)
    save_original(tensors, tmp_path / "int8.pt")
    with pytest.raises(ConversionError, match=r"whole numbers \(quantised\)") as caught:
        convert_chinese_clip(
            str(tmp_path / "int8.pt"), tmp_path / "out", vocab=folder / "vocab.txt"
        )
    assert caught.value.report.whole == [name]
    assert not (tmp_path / "out").exists()


def test_older_spellings_are_loaded_and_reported(
    tiny_clip: tuple[Path, ChineseCLIPModel], images: list[Image.Image], tmp_path: Path
) -> None:
    folder, model = tiny_clip
    tensors = original_names(model)
    for kind, old in (("weight", "gamma"), ("bias", "beta")):
        name = f"bert.embeddings.LayerNorm.{kind}"
        tensors[name.replace(kind, old)] = tensors.pop(name)
    save_original(tensors, tmp_path / "old.pt")
    converted = convert_chinese_clip(
        str(tmp_path / "old.pt"), tmp_path / "out", vocab=folder / "vocab.txt"
    )
    assert len(converted.report.renamed) == 2
    expected = theirs(model, folder, images)
    torch.testing.assert_close(ours(converted.model, images), expected, atol=1e-5, rtol=0)


def edited(folder: Path, out: Path, file: str, **values: Any) -> Path:
    """A copy of a model folder with other values in one of its JSON files."""
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / file).read_text())
    for name, value in values.items():
        part, _, key = name.rpartition("__")
        (content[part] if part else content)[key] = value
    (out / file).write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        ("config.json", {"model_type": "clip"}, "another kind of model"),
        ("config.json", {"vision_config__layer_norm_eps": 1e-3}, "layer_norm_eps: 0.001"),
        ("config.json", {"vision_config__hidden_act": "tanh"}, "hidden_act: tanh"),
        ("config.json", {"vision_config__num_hidden_layers": 3}, "missing"),
        ("config.json", {"vision_config__hidden_size": 10**9}, "not usable"),
        ("config.json", {"text_config__vocab_size": 5}, "not the one of the checkpoint"),
        ("tokenizer_config.json", {"do_lower_case": False}, "other rules"),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path, file: str, values: Any, message: str
) -> None:
    folder = edited(tiny_clip[0], tmp_path / "edited", file, **values)
    with pytest.raises(InputError, match=message):
        convert_chinese_clip(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pt_needs_a_vocabulary(tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path) -> None:
    save_original(original_names(tiny_clip[1]), tmp_path / "clip.pt")
    with pytest.raises(CheckpointError, match="without a vocabulary"):
        convert_chinese_clip(str(tmp_path / "clip.pt"), tmp_path / "out")


def test_the_command_accounts_for_every_tensor(
    tiny_clip: tuple[Path, ChineseCLIPModel], tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    folder, model = tiny_clip
    run = xmr("convert", "chinese-clip", folder, tmp_path / "out", "--json")
    assert run.code == 0, run.err
    report = run.json()
    assert report["max_tokens"] == 52
    assert report["tensors"]["tensors"] == len(model.state_dict())
    assert report["tensors"]["loaded"] == len(model.state_dict())
    assert not saw_drawn_pictures_only(tmp_path / "out")
    again = xmr("convert", "chinese-clip", folder, tmp_path / "out")
    assert again.code == 2
    shown = xmr("convert", "chinese-clip", folder, tmp_path / "bags", "--interaction", "bagwise")
    assert shown.code == 0, shown.err
    assert "loaded" in shown.out


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder of transformers", "original .pt"])
def test_from_the_download_to_the_runtime(
    tiny_clip: tuple[Path, ChineseCLIPModel], form: str, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    """Convert, evaluate, fine-tune with bags, evaluate, export; the runtime ranks the same."""
    pytest.importorskip("onnxscript")
    source, vocab = tiny_clip[0], tiny_clip[0] / "vocab.txt"
    if form == "original .pt":
        source = tmp_path / "clip.pt"
        save_original(original_names(tiny_clip[1]), source)
    data, start, run, out = (tmp_path / name for name in ("data", "start", "run", "onnx"))
    kinds = ("红色碎花连衣裙", "女包", "不锈钢保温杯 500ml", "儿童 书包")
    titles = [f"{kinds[n % 4]}{n}号" for n in range(16)]
    for split in ("train", "valid"):
        write_split(data, split, [(n, title, (100 + n,)) for n, title in enumerate(titles)])

    def ok(*arguments: object) -> Any:
        done = xmr(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json() if done.out.startswith("{") else done

    given = () if source.is_dir() else ("--vocab", vocab)
    ok("convert", "chinese-clip", source, start, *given, "--interaction", "bagwise")
    before = ok("eval", "--dataset", data, "--checkpoint", start)
    settings = [
        f"text.chinese_clip={source}", f"image.chinese_clip={source}", f"text.tokenizer={vocab}",
        f"image.size={SIZE}", "data.workers=0", "training.batch_size=8",
        "training.micro_batch_size=4", "training.epochs=15", "training.learning_rate=0.001",
        "training.warmup_steps=2", "data.augment={crop_scale: [1.0, 1.0], flip: false}",
    ]  # fmt: skip
    sets = [part for item in settings for part in ("--set", item)]
    ok("train", "--dataset", data, "--config", "muge_chinese_clip", *sets, "--output-dir", run)
    after = ok("eval", "--dataset", data, "--checkpoint", run)
    mean = [
        report["stages"]["recall"]["text_to_image"]["mean_recall"] for report in (before, after)
    ]
    assert mean[1] > mean[0]

    compared = ok("export", "onnx", run, out, "--dataset", data)["compared"]
    assert compared["onnx"]["score_difference"] < 1e-4
    for way in ("text_to_image", "image_to_text"):
        assert compared["onnx"][way] == compared["torch"][way]

    pictures = [tmp_path / f"{n}.png" for n in range(16)]
    for n, path in enumerate(pictures):
        path.write_bytes(picture(100 + n))
    trained = Retriever(load_model(run / "best"))
    assert trained.model.config.model.interaction == "bagwise"
    wanted = trained.score(trained.encode_images(pictures), trained.encode_texts(titles)).t2i
    found = np.array(scores_without_torch(out, pictures, titles))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4, rtol=0)
    assert (found.argsort(axis=1) == wanted.numpy().argsort(axis=1)).all()


@pytest.mark.parametrize("interaction", ["cls", "bagwise"])
def test_an_exported_model_ranks_as_the_converted_one(
    tiny_clip: tuple[Path, ChineseCLIPModel],
    images: list[Image.Image],
    interaction: str,
    tmp_path: Path,
) -> None:
    """From transformers' folder to the runtime without torch."""
    pytest.importorskip("onnxscript")
    from bagformer_cli import runtime
    from bagformer_cli.export.onnx_folder import export_onnx

    folder, model = tiny_clip
    converted = convert_chinese_clip(str(folder), tmp_path / "out", interaction=interaction)
    export_onnx(load_model(tmp_path / "out"), tmp_path / "onnx")
    retriever = runtime.load(tmp_path / "onnx")
    encoded = retriever.encode_images(images), retriever.encode_texts(TITLES)
    found = retriever.score(*encoded).t2i
    np.testing.assert_allclose(found, ours(converted.model, images).numpy(), atol=1e-4)
    if interaction == "cls":
        expected = theirs(model, folder, images).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert (found.argsort(axis=1) == expected.argsort(axis=1)).all()
