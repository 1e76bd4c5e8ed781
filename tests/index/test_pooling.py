"""A search scores titles and images as the evaluation does, whatever the model's pooling."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lancedb", reason="needs lancedb, which is not installed")

from bagformer_cli.api import Retriever
from bagformer_cli.calibration import Calibration, Curve, read_calibration
from bagformer_cli.config import Pooling
from bagformer_cli.config.scoring import Scoring
from bagformer_cli.data.catalogue.products import Product
from bagformer_cli.data.images import decode
from bagformer_cli.data.left_out import LeftOut
from bagformer_cli.data.positives import Positives
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.encoded_split import score_matrices
from bagformer_cli.index import cache_recall, segment_scan
from bagformer_cli.index.centroids import CentroidIndex
from bagformer_cli.index.encode import EncodeOptions, encode_products, layout_of
from bagformer_cli.index.engine import Queries
from bagformer_cli.index.engines import create_engine, open_engine
from bagformer_cli.index.rows import Layout
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.interaction.device_images import DeviceImages
from bagformer_cli.interaction.maxsim import maxsim
from bagformer_cli.interaction.rules import rule_scores
from bagformer_cli.interaction.topk import score_pairs, topk
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.encode import EncodedItems
from bagformer_cli.models.scorers import pooled_maxsim
from bagformer_cli.runtime.scan import scan
from bagformer_cli.runtime.vectors import maxsim as maxsim_in_numpy
from bagformer_cli.serve.shards import LocalShard, Query, open_shard, search_shards
from bagformer_cli.training.hard_negatives import GroundTruth, mine_vectors
from bagformer_cli.vectors.multi_vectors import MultiVectors
from bagformer_cli.vectors.residual_codes import Codebook
from tests.support.datasets import picture
from tests.support.exported import model_of

POOLINGS = get_args(Pooling)
TITLES = [
    "红色碎花连衣裙",
    "304不锈钢保温杯500ml",
    "女",
    "2024新款儿童加绒牛仔裤男宽松",
    "蓝色波点雨伞",
]
ENGINES = [
    "lance",
    pytest.param("qdrant-local", marks=pytest.mark.slow),
    pytest.param("qdrant", marks=pytest.mark.slow),
]


def items(lengths: list[int], seed: int, dim: int = 8) -> MultiVectors:
    """Make unit vectors."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), dim)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return MultiVectors(torch.from_numpy(values), torch.tensor([0, *lengths]).cumsum(0))


def evaluated(
    texts: MultiVectors, images: MultiVectors, scoring: Scoring, images_ask: bool
) -> torch.Tensor:
    """The evaluation's score matrix of one direction, [queries, items]."""
    return pooled_maxsim(texts, images, scoring)[images_ask]


LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=9)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(POOLINGS), st.booleans(), st.booleans(), LENGTHS, LENGTHS, st.integers(0, 99)
)
def test_every_scan_scores_as_the_evaluation(
    pooling: Any, means: bool, images_ask: bool, n_texts: list[int], n_images: list[int], seed: int
) -> None:
    texts, images = items(n_texts, seed), items(n_images, seed + 100)
    scoring = Scoring(pooling, means)
    wanted = evaluated(texts, images, scoring, images_ask)
    queries, found = (images, texts) if images_ask else (texts, images)
    rule = scoring.rule(images_ask, not images_ask)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(rule_scores(queries, found, rule), wanted, **close)
    some = torch.arange(0, len(found), 2)
    parts = rule_scores(queries, found, rule, candidates=some, budget=1)
    torch.testing.assert_close(parts, wanted[:, some], **close)
    best = wanted.sort(dim=1, descending=True).values
    k = len(found)
    torch.testing.assert_close(topk(queries, found, k, rule=rule, budget=1)[0], best, **close)
    device = DeviceImages(found, torch.device("cpu"))
    scores = device.topk(queries, k, None, rule)[0]
    torch.testing.assert_close(scores, best, rtol=1e-2, atol=1e-2)  # in float16
    pairs = torch.arange(k).repeat(len(queries), 1)
    torch.testing.assert_close(score_pairs(queries, found, pairs, rule), wanted, **close)
    in_numpy = scan(queries.arrays(), found.arrays(), k, rule=rule)[0]
    np.testing.assert_allclose(in_numpy, best.numpy(), **close)
    both = maxsim_in_numpy(texts.arrays(), images.arrays(), scoring)
    np.testing.assert_allclose(both.i2t if images_ask else both.t2i, wanted.numpy(), **close)
    assert np.abs(both.t2i_mean).max() <= 1 + 1e-5
    assert np.abs(both.i2t_mean).max() <= 1 + 1e-5


def test_text_pooling_swaps_the_roles_for_an_image() -> None:
    """By hand: an image of one vector, which a short title fits best and a long one often."""
    image = MultiVectors.from_list([torch.tensor([[1.0, 0.0]])])
    titles = MultiVectors.from_list(
        [torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5], [0.6, 0.4]])]
    )
    for scoring, wanted in (
        (Scoring(), [0.9, 0.6]),
        (Scoring("text"), [0.9, 1.1]),
        (Scoring("text", means=True), [0.9, 0.55]),
    ):
        found = rule_scores(image, titles, scoring.rule(True, False))
        assert found[0].tolist() == pytest.approx(wanted)


def test_two_images_are_compared_by_maxsim() -> None:
    for pooling in POOLINGS:
        assert Scoring(pooling).rule(True, True).is_maxsim
        assert Scoring(pooling).rule(False, False).is_maxsim


@pytest.mark.parametrize("images_ask", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("stored", [torch.int8, torch.float16])
def test_stored_types_keep_the_order(pooling: Any, images_ask: bool, stored: torch.dtype) -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 300).tolist()
    rule = Scoring(pooling, means=True).rule(images_ask, not images_ask)
    queries, found = items([3, 7], 1, 32), items(lengths, 2, 32)
    kept = found.to(dtype=stored)
    wanted = topk(queries, kept.to(dtype=torch.float32), 10, rule=rule)
    scores, positions = scan(queries.arrays(), kept.arrays(), 10, rule=rule)
    assert positions.tolist() == wanted[1].tolist()
    np.testing.assert_allclose(scores, wanted[0].numpy(), atol=1e-4)
    rough = topk(queries, kept, 40, rule=rule)[1]
    assert all(set(own[:10]) <= set(more) for own, more in zip(
        wanted[1].tolist(), rough.tolist(), strict=True))  # fmt: skip


@pytest.mark.parametrize("pooling", POOLINGS)
def test_residual_codes_are_decoded(pooling: Any) -> None:
    rule = Scoring(pooling).rule(True, False)
    queries, found = items([3, 7], 1, 32), items([4] * 200, 2, 32)
    coded = found.code(Codebook.train(found.values))
    plain = coded.to(dtype=torch.float32)
    wanted = topk(queries, plain, 10, rule=rule)
    scores, positions = topk(queries, coded, 10, dtype=torch.float32, rule=rule)
    assert positions.tolist() == wanted[1].tolist()
    torch.testing.assert_close(scores, wanted[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        score_pairs(queries, coded, positions, rule), wanted[0], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("images_ask", [True, False])
def test_centroids_select_by_the_same_rule(pooling: Any, images_ask: bool) -> None:
    """The first stage finds what a scan of the same, rounded vectors finds."""
    lengths = np.random.default_rng(3).integers(1, 9, 400).tolist()
    found = items(lengths, 4, 16)
    index = CentroidIndex.build([found])
    rule = Scoring(pooling, means=images_ask).rule(images_ask, not images_ask)
    rounded = MultiVectors(index.centroids.float()[torch.from_numpy(index.ids.astype(np.int64))],
                           found.offsets)  # fmt: skip
    (query,) = items([5], 5, 16)
    everything = np.ones(400, np.bool_)
    everything[::7] = False
    got = index.candidates(query, 20, everything, 0.0, 0.05, rule)
    allowed = torch.from_numpy(np.flatnonzero(everything))
    best = topk(MultiVectors.from_list([query]), rounded, 20, candidates=allowed, rule=rule)[1][0]
    assert len(set(got.tolist()) & set(best.tolist())) >= 19  # equal up to a rounded score
    assert everything[got].all()


# ------------------------------------------------------------------------------------ an index


def catalogue() -> list[Product]:
    return [Product("test", f"p{n}", None, picture(n), title, {}) for n, title in enumerate(TITLES)]


def index_of(model: RetrievalModel, uri: str) -> Index:
    options = EncodeOptions(dtype="float32", thumbnail=0)
    layout = layout_of(model, options, {})
    engine = create_engine(uri, layout)
    for rows in encode_products(model, layout, catalogue(), options, LeftOut()):
        engine.upsert(rows)
    return Index(engine, model)


def matrices(model: RetrievalModel) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The evaluation's matrices of the same titles and images, t2i and i2t."""
    retriever = Retriever(model)
    texts = retriever.encode_texts(TITLES)
    images = retriever.encode_images([decode(picture(n)) for n in range(len(TITLES))])
    return score_matrices(
        EncodedItems(texts, texts.mean()), EncodedItems(images, images.mean()), model.config
    )


@pytest.fixture(params=ENGINES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "lance":
        return str(tmp_path / "index")
    if request.param == "qdrant":
        return f"{request.getfixturevalue('qdrant_server')}/pooling-{uuid.uuid4().hex}"
    pytest.importorskip("qdrant_client")
    return f"qdrant://{tmp_path}/items"


@pytest.mark.parametrize("late_scale", ["sum", "mean"])
@pytest.mark.parametrize("interaction", ["cls", "tokenwise", "bagwise"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_search_gives_the_row_of_the_evaluation(
    uri: str, pooling: str, interaction: str, late_scale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late_scale == "sum":  # scan in torch, as a larger index is scanned
        monkeypatch.setattr(segment_scan, "NUMPY_RULE_PRODUCTS", 0)
    model = model_of(
        f"model.pooling={pooling}",
        f"model.interaction={interaction}",
        f"objectives.late_scale={late_scale}",
    )
    t2i, i2t = matrices(model)
    index = index_of(model, uri)
    scores = Retriever(model).score(
        Retriever(model).encode_images([decode(picture(n)) for n in range(len(TITLES))]),
        Retriever(model).encode_texts(TITLES),
    )
    np.testing.assert_allclose(scores.i2t.numpy(), i2t, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores.t2i.numpy(), t2i, rtol=1e-4, atol=1e-4)
    means = {True: scores.i2t_mean.numpy(), False: scores.t2i_mean.numpy()}
    for recall in ("exact", "vector"):
        for of, queries, wanted in (
            ("title", [picture(n) for n in range(len(TITLES))], i2t),
            ("image", TITLES, t2i),
        ):
            options = SearchOptions(k=9, of=of, recall=recall)  # type: ignore[arg-type]
            images = of == "title"
            found = index.search_many(queries, options, images=images)
            for row, (result, own) in enumerate(zip(found, wanted, strict=True)):
                at = [int(hit.id.removeprefix("p")) for hit in result]
                assert sorted(at) == list(range(len(TITLES)))
                np.testing.assert_allclose(
                    [hit.score for hit in result], np.sort(own)[::-1], rtol=1e-2, atol=2e-3
                )
                np.testing.assert_allclose([h.fast for h in result], own[at], rtol=1e-2, atol=2e-3)
                np.testing.assert_allclose(
                    [h.mean for h in result], means[images][row][at], rtol=1e-2, atol=2e-3
                )
    index.engine.close()


def test_a_search_with_centroids_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("model.pooling=text", "objectives.late_scale=mean")
    index = index_of(model, str(tmp_path / "index"))
    monkeypatch.setattr(cache_recall, "MIN_CANDIDATES", 4)
    monkeypatch.setattr(cache_recall, "CANDIDATES_PER_RESULT", 1)
    index.engine.optimize()
    index.engine.updated_cache("title").build_centroids(min_bytes=0)  # type: ignore[attr-defined]
    exact = index.search(image=picture(2), of="title", recall="exact", k=3)
    found = index.search(image=picture(2), of="title", recall="tokens", k=3)
    assert found.plan[0]["method"] == "tokens"
    assert [hit.id for hit in found] == [hit.id for hit in exact]


def test_an_index_knows_its_scoring_without_the_model(tmp_path: Path) -> None:
    model = model_of("model.pooling=text", "objectives.late_scale=mean")
    front = index_of(model, str(tmp_path / "index"))
    layout = open_engine(str(tmp_path / "index")).layout
    assert layout.scoring == Scoring("text", means=True)
    assert layout.to_json()["pooling"] == "text"
    shard = open_shard(str(tmp_path / "index"))
    options = SearchOptions(k=3, of="title")
    alone = front.search_many([picture(1)], options, images=True)[0]
    for shards in ([shard], [LocalShard(front)]):
        together = search_shards(front, shards, [Query(image=picture(1))], options)[0]
        assert [hit.id for hit in together] == [hit.id for hit in alone]
        assert [hit.score for hit in together] == [hit.score for hit in alone]
        assert [hit.mean for hit in together] == [hit.mean for hit in alone]


def test_an_index_of_an_earlier_version_takes_the_scoring_from_the_model(tmp_path: Path) -> None:
    model = model_of("model.pooling=text")
    options = EncodeOptions(dtype="float32", thumbnail=0)
    old = layout_of(model, options, {})
    old = Layout(**{**vars(old), "pooling": "each", "means": False})
    assert "pooling" not in old.to_json()
    engine = create_engine(str(tmp_path / "index"), old)
    for rows in encode_products(model, old, catalogue(), options, LeftOut()):
        engine.upsert(rows)
    found = Index(engine, model).search(image=picture(0), of="title", k=9)
    wanted = np.sort(matrices(model)[1][0])[::-1]
    np.testing.assert_allclose([hit.score for hit in found], wanted, rtol=1e-2, atol=2e-3)


def test_encoded_files_of_an_earlier_version_fit_an_index_of_this_one() -> None:
    new = layout_of(model_of("model.pooling=text"), EncodeOptions(), {})
    assert new.scoring.pooling == "text"
    old = Layout(**{**vars(new), "pooling": "each"})
    new.require_same(old, "here")
    old.require_same(new, "here")


def test_a_fusion_uses_mean_cosines_of_the_rule(tmp_path: Path) -> None:
    model = model_of("model.pooling=image", "objectives.late_scale=sum")
    index = index_of(model, str(tmp_path / "index"))
    plain = {hit.id: hit for hit in index.search("红色 保温杯", k=9)}
    fused = index.search("红色 保温杯", k=9, fusion="weighted", lexical_weight=0.0)
    for hit in fused:
        assert hit.mean == pytest.approx(plain[hit.id].mean, abs=1e-5)
        assert hit.score == pytest.approx(hit.mean, abs=1e-5)
        assert abs(hit.mean) <= 1


def test_one_of_several_queries_keeps_the_rule() -> None:
    rule = Scoring("text").rule(True, False)
    arrays = items([2, 3], 0).arrays()
    assert Queries(arrays, arrays.mean(), rule).one(1).rule == rule


def test_maxsim_is_the_rule_of_each() -> None:
    texts, images = items([2, 3], 0), items([4, 1, 2], 1)
    t2i, i2t = maxsim(texts, images)
    torch.testing.assert_close(rule_scores(texts, images), t2i)
    torch.testing.assert_close(rule_scores(images, texts), i2t)


def test_negatives_are_mined_by_the_score_of_the_model() -> None:
    texts, images = items([2, 3, 1, 4], 0), items([3, 1, 2, 5, 2, 4], 1)
    own = np.arange(4, dtype=np.int64)
    groups = Positives(own, np.arange(6), 6, own * 6 + own)
    truth = GroundTruth(groups, np.arange(5), own)
    for pooling in POOLINGS:
        scoring = Scoring(pooling)
        found = mine_vectors(texts, images, truth, 2, rule=scoring.rule(False, True))
        t2i = pooled_maxsim(texts, images, scoring)[0][:, :4].numpy()  # named images only
        np.fill_diagonal(t2i, -np.inf)
        assert found.positions.tolist() == np.argsort(-t2i, axis=1)[:, :2].tolist()


def test_a_score_that_is_no_sum_over_bags_has_no_parts() -> None:
    text = Retriever(model_of("model.pooling=text"))
    (found,) = text.explain(picture(0), TITLES[:1])
    assert found.i2t == found.t2i
    scores = text.score(text.encode_images([picture(0)]), text.encode_texts(TITLES[:1]))
    wanted = found.t2i if text.scoring.means is False else found.t2i / len(found.parts)
    assert float(scores.i2t[0, 0]) == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(InputError, match="no sum over bags"):
        Retriever(model_of("model.pooling=image")).explain(picture(0), TITLES[:1])


def test_a_calibration_of_another_score_is_refused() -> None:
    curves = {"text_to_image": Curve("platt", slope=1.0)}
    older = Calibration("a" * 16, curves)
    assert older.refusal("a" * 16) is None
    assert "pooled" in str(older.refusal("a" * 16, scoring=Scoring("text")))


def test_a_calibration_keeps_how_its_scores_were_made(tmp_path: Path) -> None:
    curves = {"text_to_image": Curve("platt", slope=1.0)}
    made = Calibration("a" * 16, curves, scoring=Scoring("text", means=True))
    made.save(tmp_path)
    read = read_calibration(tmp_path)
    assert read is not None
    assert read.scoring == made.scoring


def test_both_scores_of_a_pair_are_named(tmp_path: Path, xmr: Callable[..., Any]) -> None:
    save_model(model_of("model.pooling=text"), tmp_path / "model")
    (tmp_path / "a.png").write_bytes(picture(0))
    ask = ["score", tmp_path / "a.png", *TITLES[:2], "--checkpoint", tmp_path / "model"]
    report = xmr(*ask, "--json").json()
    assert report["pooling"] == "text"
    assert report["image_to_text"] == report["text_to_image"]
    assert report["image_to_text_mean"] == report["text_to_image_mean"]
    assert "One score for both directions" in xmr(*ask).out
