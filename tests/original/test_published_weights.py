"""``compat: bagformer`` gives the titles and figures that were recorded of the original.

The full-size weights are made here by the reference's own generator; they never enter the tree.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bagformer_cli.data.batches import Batch, TextBatch, pixels_of
from bagformer_cli.data.images import decode, resize
from bagformer_cli.encoders.states import States
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.models.build import build_model
from bagformer_cli.models.checkpoint import load_weights
from bagformer_cli.models.convert.albef import Sizes
from bagformer_cli.models.convert.albef import weights_of as sources_of
from bagformer_cli.models.convert.tensors import assemble, interpolate_positions
from bagformer_cli.models.dual import Encoded
from bagformer_cli.original.model import lay_out
from bagformer_cli.original.text import CompatSegmenter, CompatTitleEncoder, WordList
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.training.task import RetrievalTask
from tests.support.original_weights import generator, weights_of


def reference(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(shared / "reference/expected.npz") as arrays:
        figures = dict(arrays)
    return figures, json.loads((shared / "reference/expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def original_titles() -> dict[bool, CompatTitleEncoder]:
    """The original's vocabulary and dictionary, without [SEP] and with it."""
    data = Path(__file__).resolve().parents[3] / "shared/data"
    tokenizer = Tokenizer.load(data / "bert-base-chinese/vocab.txt")
    segmenter = CompatSegmenter(WordList.load([data / "bagformer/entity_dict_20220507"]), tokenizer)
    return {sep: CompatTitleEncoder(tokenizer, segmenter, 25, sep) for sep in (False, True)}


@pytest.mark.shared
@pytest.mark.parametrize("sep", [False, True])
def test_every_recorded_title_has_the_original_s_ids_bags_and_masks(
    sep: bool, shared: Path, original_titles: dict[bool, CompatTitleEncoder]
) -> None:
    text = (shared / "reference/segmenter.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 269
    titles = original_titles[sep]
    at = lay_out(TextBatch.from_tokens(titles([line["text"] for line in lines]), 0), 25, 0)
    bags = at.present.sum(dim=1)
    offsets = at.offsets.split(bags.tolist())
    for i, line in enumerate(lines):
        expected = line["sep" if sep else "nosep"]
        assert at.input_ids[i].tolist() == expected["input_ids"], line["text"]
        assert int(at.attention_mask[i].sum()) == expected["n_tokens"], line["text"]
        assert (offsets[i] - 25 * i).tolist() == expected["automaton"]["offsets"], line["text"]
        mask = at.mask[i, : bags[i]].int().tolist()
        assert mask == expected["automaton"]["mask"], line["text"]


@pytest.mark.shared
def test_so_many_entries_can_be_found(original_titles: dict[bool, CompatTitleEncoder]) -> None:
    assert len(original_titles[False].segmenter.matcher) == 201_023


class Original:
    """The model of full size with the reference's weights, and what was computed with it."""

    def __init__(self, shared: Path, titles: dict[bool, CompatTitleEncoder]) -> None:
        self.figures, self.record = reference(shared)
        self.state = weights_of(shared)
        sizes = Sizes.of(self.state)
        config = sizes.config(None, shared)
        config.compat = "bagformer"
        self.model = build_model(config, titles[False], pretrained=False).eval()
        shapes = {name: tuple(value.shape) for name, value in self.model.state_dict().items()}
        made, report = assemble(sources_of(shapes, sizes), shapes, self.state)
        assert report.complete
        load_weights(self.model, made, "reference")
        self.titles = titles
        files = [
            shared / "data/bagformer/rumble_roller.jpeg",
            shared / "reference/img_dress.png",
        ]
        self.pixels = torch.stack([pixels_of(decode(file), 256) for file in files])
        self.raw = torch.from_numpy(np.stack([resize(decode(file), 256) for file in files]))
        with torch.inference_mode():
            self.image_states = self.model.dual.encode_images(self.pixels).states.values

    @property
    def texts(self) -> list[str]:
        return self.record["inputs"]["titles"]

    @contextmanager
    def variant(
        self, interaction: str = "bagwise", *, early: bool = False, readme: bool = False
    ) -> Iterator[Any]:
        dual: Any = self.model.dual
        before = dual.interaction, dual.config, dual.early, dual.raw
        config = dual.config.model_copy(update={"interaction": interaction})
        dual.interaction, dual.config, dual.early, dual.raw = interaction, config, early, readme
        try:
            yield dual
        finally:
            dual.interaction, dual.config, dual.early, dual.raw = before

    def texts_alone(self, dual: Any, sep: bool = False) -> list[Encoded]:
        """Each title in a batch of its own."""
        batches = [TextBatch.from_tokens(self.titles[sep]([text]), pad_id=0) for text in self.texts]
        return [dual.encode_texts(batch) for batch in batches]

    def images(self, dual: Any) -> Encoded:
        """Both images; the tower itself has run once."""
        tower = dual.vision_encoder.forward
        dual.vision_encoder.forward = lambda pixels: self.image_states
        try:
            return dual.encode_images(self.pixels)
        finally:
            dual.vision_encoder.forward = tower

    def pairs(self, text: TextBatch) -> Batch:
        """A training batch of two titles and both images."""
        two = torch.arange(2)
        positives = torch.eye(2, dtype=torch.bool)
        return Batch(text, self.raw, two, positives, two, two, two, two)

    def gradient_norms(self, loss: Tensor) -> dict[str, float]:
        """The norms of some gradients, under the original's names."""
        self.model.zero_grad()
        loss.backward()
        ours = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        self.model.zero_grad()
        bert, vit = "dual.text_encoder.bert.", "dual.vision_encoder.backbone."
        cross = ours["cross.fusion.layers.5.multihead_attn.in_proj_weight"]
        assert cross is not None
        found = {
            "text_encoder.encoder.layer.11.crossattention.self.value.weight": cross[-768:],
            "temp": ours["temperature"],
            "itm_head.weight": ours["cross.itm_head.weight"],
            "text_proj.weight": ours["dual.text_proj.weight"],
            "vision_proj.bias": ours["dual.vision_proj.bias"],
        }
        for name in ("patch_embed.proj.weight", "pos_embed"):
            found[f"visual_encoder.{name}"] = ours[vit + name]
        for name in (
            "embeddings.word_embeddings.weight",
            "encoder.layer.0.attention.self.query.weight",
        ):
            found[f"text_encoder.{name}"] = ours[bert + name]
        return {name: float(value.norm()) for name, value in found.items() if value is not None}


@pytest.fixture(scope="module")
def original(original_titles: dict[bool, CompatTitleEncoder]) -> Original:
    return Original(Path(__file__).resolve().parents[3] / "shared", original_titles)


def close(ours: Any, expected: Any, relative: float = 1e-4, absolute: float | None = None) -> None:
    """Within ``relative`` of the largest magnitude (or ``absolute``)."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    assert ours.shape == expected.shape
    allowed = relative * np.abs(expected).max() if absolute is None else absolute
    assert np.abs(ours - expected).max() <= allowed


DIMS = slice(0, 64)


@pytest.mark.shared
@pytest.mark.slow
class TestOriginal:
    """Features and scores within 1e-4, ITM logits within 1e-3, losses within 1e-4."""

    @torch.inference_mode()
    def test_images(self, original: Original) -> None:
        figures, at = original.figures, original.record["slices"]["patch_positions"]
        close(original.pixels[:, :, 8::16, 8::16], figures["pixels_every16"])
        states = original.image_states
        close(states[:, at, DIMS], figures["vis_out_slice"])
        close(states.norm(dim=-1), figures["vis_out_norms"])
        with original.variant() as dual:
            features = torch.stack(original.images(dual).vectors.to_list())
        close(features[:, at, DIMS], figures["vis_feat_slice"])
        close(features[:, 0], figures["vis_feat_cls"])

    @pytest.mark.parametrize("sep", [False, True])
    @torch.inference_mode()
    def test_titles(self, sep: bool, original: Original) -> None:
        figures, at = original.figures, original.record["slices"]["text_positions"]
        name = "text_sep" if sep else "text_nosep"
        with original.variant() as dual:
            encoded = original.texts_alone(dual, sep)
        states = torch.cat([title.states.values for title in encoded])
        close(states[:, at, DIMS], figures[f"{name}_hidden_slice"])
        close(states.norm(dim=-1), figures[f"{name}_hidden_norms"])
        for title, mask in zip(encoded, figures[f"{name}_attention_mask"], strict=True):
            assert title.states.kept[0].int().tolist() == mask.tolist()
        if not sep:
            bags = torch.stack([title.vectors.values for title in encoded])
            close(bags[..., :32], figures["eval_bag_feats_bs1_slice"])
            close(bags.norm(dim=-1), figures["eval_bag_feats_bs1_norms"])

    @pytest.mark.parametrize(
        ("interaction", "early"),
        [("bagwise", False), ("bagwise", True), ("tokenwise", True), ("cls", True)],
    )
    @torch.inference_mode()
    def test_evaluation(self, interaction: str, early: bool, original: Original) -> None:
        fusion = "early_fusion" if early else "late_fusion"
        kind = "cls_token" if interaction == "cls" else interaction
        with original.variant(interaction, early=early) as dual:
            texts, images = original.texts_alone(dual), original.images(dual)
        self.check_scores(original, f"eval_{fusion}_{kind}_bs1", texts, images)

    def check_scores(
        self, original: Original, name: str, texts: list[Encoded], images: Encoded
    ) -> None:
        head: Any = original.model.cross
        for row, title in enumerate(texts):
            t2i, i2t = maxsim(title.vectors, images.vectors)
            slow = head.score(title.states.select(torch.tensor([0, 0])), images.states)
            for way, fast in (("t2i", t2i[0]), ("i2t", i2t[:, 0])):
                expected = {
                    stage: original.figures[f"{name}_{stage}_{way}"]
                    for stage in ("recall", "rank", "merge")
                }
                if way == "i2t":
                    expected = {stage: figures.T for stage, figures in expected.items()}
                wanted = {stage: figures[row] for stage, figures in expected.items()}
                np.testing.assert_allclose(fast, wanted["recall"], rtol=1e-4, atol=1e-5)
                ranked = wanted["rank"] > -100  # what was not in the original's top k has -100
                for ours, stage in ((slow, "rank"), (slow + fast, "merge")):
                    np.testing.assert_allclose(ours[ranked], wanted[stage][ranked], atol=1e-3)

    @pytest.mark.parametrize("kind", ["cls", "tokenwise"])
    @torch.inference_mode()
    def test_late_baselines_are_normalised_over_the_positions(
        self, kind: str, original: Original
    ) -> None:
        with original.variant(kind) as dual:
            texts, images = original.texts_alone(dual), original.images(dual)
            for title in texts:
                projected = dual.text_proj(title.states.values[0])
                columns = projected / projected.norm(dim=0, keepdim=True)
                pictures = F.normalize(dual.vision_proj(original.image_states), dim=-1)
                t2i, i2t = maxsim(title.vectors, images.vectors)
                if kind == "cls":
                    expected = pictures[:, 0] @ columns[0]
                    close(t2i[0], expected)
                    close(i2t[:, 0], expected)
                else:
                    products = columns @ pictures.transpose(1, 2)
                    close(t2i[0], products.max(dim=2).values.sum(dim=1))
                    close(i2t[:, 0], products.max(dim=1).values.sum(dim=1))

    @torch.inference_mode()
    def test_slow_logits(self, original: Original) -> None:
        figures, head = original.figures, original.model.cross
        assert head is not None
        at = original.record["slices"]["text_positions"]
        with original.variant() as dual:
            encoded = original.texts_alone(dual)
        states = States.concatenate([title.states for title in encoded])
        for exact, name in ((False, "itm_logits_fp16img"), (True, "itm_logits_fp32")):
            head.training = exact  # the flag alone: dropout stays off
            for i in range(2):
                image = States(original.image_states[i : i + 1].expand(5, -1, -1))
                close(head(states, image), figures[name][:, i], absolute=1e-3)
            head.training = False
        fused = head.fusion(states, States(original.image_states[:1].expand(5, -1, -1)))
        close(fused[:, at, DIMS], figures["fusion_img0_slice"])
        close(fused.norm(dim=-1), figures["fusion_img0_norms"])

    @pytest.mark.parametrize("sep", [False, True])
    @torch.inference_mode()
    def test_the_example_of_the_readme(self, sep: bool, original: Original) -> None:
        name = "sep" if sep else "nosep"
        with original.variant(readme=True) as dual:
            texts, images = original.texts_alone(dual, sep)[:2], original.images(dual)
        for which, pictures in (("example", slice(0, 1)), ("two_titles_all_images", slice(0, 2))):
            figures = {
                part: original.figures[f"readme_{which}_{name}_{part}"]
                for part in ("bag_slice", "sim_i2t", "sim_t2i")
            }
            for row, title in enumerate(texts):
                close(title.vectors.values[:12, :32], figures["bag_slice"][row])
                t2i, i2t = maxsim(title.vectors, images.vectors[pictures])
                close(t2i[0], figures["sim_t2i"][row])
                close(i2t[:, 0], figures["sim_i2t"][:, row])

    @pytest.mark.parametrize(
        "case",
        ["late_fusion_bs2_a", "early_fusion_bs2_a", "temp_0.01_clamped", "temp_0.9_clamped"],
    )
    def test_losses_and_gradients(self, case: str, original: Original) -> None:
        expected = original.record["losses"][case]
        model: Any = original.model
        texts = [original.texts[i] for i in expected["titles"]]
        text = TextBatch.from_tokens(original.titles[False](texts), pad_id=0)
        if "offsets" in expected:
            assert cut_to_the_shortest(text) == (expected["offsets"], expected["mask"])
        before = model.temperature.detach().clone()
        flags = (model.dual, model.cross)  # the flags alone: dropout stays off
        try:
            if case.startswith("temp"):
                model.temperature.data.fill_(float(case.split("_")[1]))
            model.clamp_temperature()
            for module in flags:
                module.training = True
            task = RetrievalTask(model, model.config)
            with original.variant(early=case.startswith("early")):
                output = task(original.pairs(text))
            figures = {**output.losses, "total": output.total}
            temperature = model.temperature.item()
            norms = original.gradient_norms(output.total) if "grad_norms" in expected else {}
        finally:
            for module in flags:
                module.training = False
            model.temperature.data.copy_(before)
        assert temperature == pytest.approx(expected.get("temp_after", expected.get("temp")))
        for ours, theirs in (
            ("itc_loss", "loss_ita"),
            ("late_interaction_loss", "loss_twc"),
            ("itm_loss", "loss_itm"),
            ("total", "loss_total"),
        ):
            if theirs in expected:
                assert figures[ours].item() == pytest.approx(expected[theirs], rel=1e-4), ours
        for name, norm in norms.items():
            assert norm == pytest.approx(expected["grad_norms"][name], rel=1e-4), name

    def test_positions_for_another_image_size(self, original: Original, shared: Path) -> None:
        at = original.record["slices"]["patch_positions"]
        for size in (224, 384):
            shape = (1, 1 + (size // 16) ** 2, 768)
            positions = torch.from_numpy(generator(shared).one(f"fixture_{size}.pos_embed", shape))
            ours = interpolate_positions(positions, 16)[:, at, DIMS]
            close(ours, original.figures[f"pos_embed_{size}_to_256_slice"])


def cut_to_the_shortest(batch: TextBatch) -> tuple[list[int], list[list[int]]]:
    """What the original makes of a batch's bags. The bags that it cuts off here are masked, and
    so is the last one that swallows them: its figures are those of whole titles."""
    at = lay_out(batch, 25, 0)
    counts = at.present.sum(dim=1).tolist()
    offsets = torch.cat([own[: min(counts)] for own in at.offsets.split(counts)])
    assert not at.mask[:, min(counts) - 1 :].any()
    return offsets.tolist(), at.mask[:, : min(counts)].int().tolist()
