"""``compat: bagformer``: the matcher's and the layout's habits worked by hand, and against the
original for every title and every figure that was recorded of it.

The full-size weights are made here by the reference's own generator; they never enter the tree.
"""

from __future__ import annotations

import importlib.util
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

from bagformer_cli.config import load_config
from bagformer_cli.data.batches import Batch, TextBatch, pixels_of
from bagformer_cli.data.images import decode, resize
from bagformer_cli.encoders.states import States
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.models.build import RetrievalModel, build_model
from bagformer_cli.models.checkpoint import load_weights
from bagformer_cli.models.convert.albef import Sizes
from bagformer_cli.models.convert.albef import weights_of as sources_of
from bagformer_cli.models.convert.tensors import assemble, interpolate_positions
from bagformer_cli.models.cross_encoders import MatchingHead
from bagformer_cli.models.dual import DualEncoder, Encoded
from bagformer_cli.original.model import (
    CompatDualEncoder,
    CompatMatchingHead,
    lay_out,
)
from bagformer_cli.original.text import (
    CompatSegmenter,
    CompatTitleEncoder,
    EntityMatcher,
    WordList,
)
from bagformer_cli.text.tokenizer import Tokenizer
from bagformer_cli.text.wordpiece import PackedTokens
from bagformer_cli.training.task import RetrievalTask

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"连衣裙女电动车头盔红色"]
TINY = {
    "text": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 48},
    "image": {
        "size": 32,
        "options": {"patch_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2},
    },
    "model": {"embed_dim": 16, "cross": {"layers": 1}},
}


def matcher(*entries: tuple[int, ...]) -> EntityMatcher:
    flat = np.array([token for entry in entries for token in entry], np.int32)
    offsets = np.cumsum([0, *map(len, entries)])
    return EntityMatcher(PackedTokens(ids=flat, starts=flat, ends=flat, offsets=offsets))


def words(*entries: str) -> CompatSegmenter:
    return CompatSegmenter(WordList(entries), Tokenizer(VOCABULARY))


# ------------------------------------------------------------------------------------- matching


def test_an_entry_is_found_only_if_its_beginnings_are_entries() -> None:
    found = matcher((1, 2, 3), (4, 5), (4, 5, 6), (7, 8, 9, 10), (7, 8), (11,))
    ids = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], np.int32)
    # 1-2-3 never: 1-2 is no entry. 7-8-9-10 never: 7-8-9 is none. 11: one token is no entity.
    assert list(found.entities(ids)) == [(3, 6), (6, 8)]
    assert len(found) == 3


def test_the_leftmost_entity_wins_then_the_longest() -> None:
    found = matcher((1, 2), (2, 3), (2, 3, 4))
    assert list(found.entities(np.array([1, 2, 3, 4], np.int32))) == [(0, 2)]
    assert list(found.entities(np.array([9, 2, 3, 4], np.int32))) == [(1, 4)]


def test_an_entity_leaves_both_its_ends_as_boundaries() -> None:
    found = matcher((1, 2), (3, 4))
    assert found.boundaries(np.array([0, 1, 2, 5, 6], np.int32)) == [0, 1, 3, 4]
    assert found.boundaries(np.array([0, 1, 2, 3, 4, 5], np.int32)) == [0, 1, 3, 3, 5]
    assert found.boundaries(np.array([0, 5, 1, 2], np.int32)) == [0, 1, 2, 4]
    assert found.boundaries(np.array([1, 2, 1, 2], np.int32)) == [0, 2, 2, 4]
    assert found.boundaries(np.array([5], np.int32)) == [0]


def test_the_bags_shown_are_pieces_of_the_title() -> None:
    titles = CompatTitleEncoder(
        Tokenizer(VOCABULARY), words("动车", "头盔", "电动车"), max_tokens=7, add_sep=False
    )
    bags = titles.bags("电动车 头盔红裙")
    assert [(bag.text, bag.source) for bag in bags] == [
        ("电", "token"),
        ("动车", "lexicon"),
        ("头盔", "lexicon"),
        ("红", "token"),
    ]
    assert [bag.text for bag in titles.bags("电动车 头盔红裙", whole=True)][-1] == "裙"


def test_titles_do_not_depend_on_each_other() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车", "连衣"), 7, False)
    texts = ["电动车", "", "连衣裙动车", "女"]
    together = titles(texts)
    for i, text in enumerate(texts):
        alone, same = titles([text]), together.select([i])
        assert alone.ids.tolist() == same.ids.tolist()
        assert alone.bag_starts.tolist() == same.bag_starts.tolist()
        assert alone.bag_ends.tolist() == same.bag_ends.tolist()


# --------------------------------------------------------------------------------------- layout


def test_every_padding_position_is_a_bag_and_neighbours_have_an_empty_one_between_them() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车", "头盔"), 8, False)
    batch = TextBatch.from_tokens(titles(["电动车头盔", "女"]), pad_id=0)
    at = lay_out(batch, 8, pad_id=0)
    # [CLS] 电 |动 车| empty |头 盔| [PAD] [PAD]; [CLS] 女 and six of [PAD]
    assert at.offsets.tolist() == [0, 1, 2, 4, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert at.present.sum(dim=1).tolist() == [7, 8]
    assert at.mask.int().tolist() == [[0, 1, 1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]]
    assert at.attention_mask.sum(dim=1).tolist() == [6, 2]
    sums = at.sum_bags(torch.arange(16.0).reshape(2, 8, 1))[..., 0]
    assert sums[0].tolist() == [0, 1, 2 + 3, 0, 4 + 5, 6, 7, 0]
    assert sums[1].tolist() == [8, 9, 10, 11, 12, 13, 14, 15]


def test_an_entity_at_the_very_end_leaves_an_empty_bag_behind_it() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words("动车"), 4, False)
    at = lay_out(TextBatch.from_tokens(titles(["电动车", "女"]), 0), 4, 0)
    assert at.offsets.tolist() == [0, 1, 2, 4, 4, 5, 6, 7]
    assert at.mask[0].tolist() == [False, True, True, True]


def test_special_words_in_a_title_are_masked_like_padding_but_attended_to() -> None:
    titles = CompatTitleEncoder(Tokenizer(VOCABULARY), words(), 6, True)
    at = lay_out(TextBatch.from_tokens(titles(["女[PAD]裙[CLS]"]), 0), 6, 0)
    assert at.input_ids.tolist() == [[2, 8, 0, 7, 2, 3]]
    assert at.attention_mask.all()
    assert at.mask[0].tolist() == [False, True, False, True, False, True]  # [SEP] is not masked


# ------------------------------------------------------------------------------- the small model


def tiny(compat: str | None = "bagformer", **model: Any) -> RetrievalModel:
    settings: dict[str, Any] = {**TINY, "compat": compat, "model": {**TINY["model"], **model}}
    config = load_config(settings)
    tokenizer = Tokenizer(VOCABULARY)
    titles = CompatTitleEncoder(tokenizer, words("动车", "头盔"), 25, False)
    torch.manual_seed(0)
    return build_model(config, titles).eval()


def encode(model: RetrievalModel, titles: list[str]) -> Encoded:
    batch = TextBatch.from_tokens(model.titles(titles), model.titles.tokenizer.pad_id)
    return model.dual.encode_texts(batch)


def test_the_configuration_alone_decides() -> None:
    compat, normal = tiny(), tiny(compat=None)
    assert isinstance(compat.dual, CompatDualEncoder)
    assert isinstance(compat.cross, CompatMatchingHead)
    assert type(normal.dual) is DualEncoder
    assert type(normal.cross) is MatchingHead
    assert compat.state_dict().keys() == normal.state_dict().keys()


@pytest.mark.parametrize("interaction", ["cls", "tokenwise", "bagwise"])
@pytest.mark.parametrize("fusion", ["early", "late"])
@torch.inference_mode()
def test_a_score_does_not_depend_on_batch_mates(interaction: str, fusion: str) -> None:
    model = tiny(interaction=interaction, bag_fusion=fusion)
    titles = ["电动车头盔", "女", "", "红色连衣裙女" * 5]
    together = encode(model, titles)
    for i, title in enumerate(titles):
        alone = encode(model, [title])
        torch.testing.assert_close(alone.vectors.values, together.vectors[i].values)
        torch.testing.assert_close(alone.states.values[0], together.states.values[i])
        assert torch.isfinite(alone.states.values).all()


@torch.inference_mode()
def test_a_title_that_is_masked_altogether_still_has_a_slow_score() -> None:
    model = tiny(bag_fusion="early")
    encoded = encode(model, [""])
    assert not encoded.states.kept.any()
    assert model.cross is not None
    score = model.cross.score(encoded.states, States(torch.randn(1, 5, 32)))
    assert torch.isfinite(score).all()


@torch.inference_mode()
def test_the_slow_score_sees_images_in_half_precision_but_not_in_training() -> None:
    model = tiny()
    encoded = encode(model, ["女"])
    head: Any = model.cross
    exact = torch.full((1, 5, 32), 1.0) + torch.randn(1, 5, 32) * 1e-4
    rounded = exact.half().float()
    assert not torch.equal(exact, rounded)

    def score(images: Tensor) -> Tensor:
        scores: Tensor = head.score(encoded.states, States(images))
        return scores

    torch.testing.assert_close(score(exact), score(rounded), rtol=0, atol=0)
    head.training = True
    assert not torch.equal(score(exact), score(rounded))


# --------------------------------------------------------------------- against the original code


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


def generator(shared: Path) -> Any:
    """The reference's generator of deterministic weights."""
    path = shared / "reference/make_weights.py"
    spec = importlib.util.spec_from_file_location("make_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights_of(shared: Path) -> dict[str, Tensor]:
    module = generator(shared)
    keys = json.loads((shared / "reference/state_dict_keys.json").read_text(encoding="utf-8"))
    names = module.fixture_names(keys["keys"])
    return {name: torch.from_numpy(array) for name, array in module.generate(names)}


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
