"""The page of an evaluation: its figures, the kinds of queries, the worst and the best ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import InputError
from bagformer_cli.evaluation.dataset import EvaluatedFolder, evaluate_folder, evaluate_source
from bagformer_cli.evaluation.details import answer_scores, extreme_queries, last_ranks
from bagformer_cli.evaluation.metrics import NO_POSITIVE, best_ranks
from bagformer_cli.evaluation.query_kinds import query_kinds
from bagformer_cli.evaluation.request import EvaluationRequest
from bagformer_cli.evaluation.stored_vectors import StoredVectors
from bagformer_cli.pages.evaluation import evaluation_page
from tests.support.datasets import write_split
from tests.support.small_model import saved_model

TITLES = ["红色连衣裙", "蓝色包", "雨伞", "<b>led</b> 灯"]
QUERIES = [(n, TITLES[n % 4], (100 + n, 100 + (n + 1) % 24)) for n in range(24)]
REQUEST = EvaluationRequest(rerank=[3], page=Path("page.html"), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MugeFolder:
    return write_split(tmp_path_factory.mktemp("data"), "valid", QUERIES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def evaluated(folder: MugeFolder, model: Path) -> EvaluatedFolder:
    return evaluate_folder(folder, model, REQUEST)


def test_the_page_has_all_figures_and_their_intervals(evaluated: EvaluatedFolder) -> None:
    page = evaluation_page(evaluated, "shop")
    stages = evaluated.report["stages"]
    assert page.count('<td class="figures">recall</td>') == 2
    for both in stages.values():
        for name in ("recall@1", "ndcg@10", "mrr", "map", "mean_recall"):
            shown = rf"{both['text_to_image'][name]:.1f} \([\d.]+–[\d.]+\)"
            assert re.search(shown, page), name
    assert "shop valid: 24 queries, 24 images" in page
    assert page.count("<svg") == 2


def test_texts_are_shown_as_text(evaluated: EvaluatedFolder) -> None:
    page = evaluation_page(evaluated, "<script>shop</script>")
    assert "<script>" not in page
    assert "<b>led</b>" not in page


def test_every_example_explains_its_images(evaluated: EvaluatedFolder) -> None:
    page = evaluation_page(evaluated, "shop")
    worst, best = extreme_queries(evaluated.evaluation, evaluated.split)
    images = sum(len(one.answers) + len(one.results) for one in [*worst, *best])
    assert page.count("<summary>explain</summary>") == images
    assert len(worst) + len(best) == 24


def test_the_worst_queries_have_the_highest_ranks(evaluated: EvaluatedFolder) -> None:
    found = evaluated.evaluation
    worst, best = extreme_queries(found, evaluated.split, worst=5, best=3)
    ranks = last_ranks(found)
    assert [one.rank - 1 for one in worst] == sorted(ranks.tolist(), reverse=True)[: len(worst)]
    assert all(one.rank == 1 and one.results[0].right for one in best)
    for one in [*worst, *best]:
        right = {image.position for image in one.answers if image.right}
        own = evaluated.split.items[2 * one.position : 2 * one.position + 2]
        assert right == set(own.tolist())


def test_scores_are_parted_into_answers_and_others(evaluated: EvaluatedFolder) -> None:
    found = evaluated.evaluation
    scores, positives = found.directions["text_to_image"]
    right, other = answer_scores(found)
    for query in range(24):
        own = positives.columns[positives.offsets[query] : positives.offsets[query + 1]]
        means = scores[query] / found.title_vectors[query]
        assert right[query] == pytest.approx(means[own].max())
        assert other[query] == pytest.approx(np.delete(means, own).max())
    assert ((right > other) == (best_ranks(scores, positives) == 0)).all()


def test_kinds_part_the_queries(evaluated: EvaluatedFolder) -> None:
    model = evaluated.source.model
    assert model is not None
    bags = model.titles.bags_batch(list(evaluated.split.texts))
    ranks = last_ranks(evaluated.evaluation)
    kinds = query_kinds(evaluated.split, bags, ranks, evaluated.folder)
    by_answers = [kind for kind in kinds if kind.family == "images that answer it"]
    assert [(kind.name, kind.recall.n) for kind in by_answers] == [("2–4", 24)]
    total = np.mean([(ranks < k).mean() for k in (1, 5, 10)])
    assert by_answers[0].recall.mean == pytest.approx(total)
    assert by_answers[0].interval[0] <= total <= by_answers[0].interval[1]
    assert (ranks != NO_POSITIVE).all()


def test_vectors_of_other_programs_have_a_page_without_maps(
    folder: MugeFolder, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    files = []
    for side, ids in (("text", [q[0] for q in QUERIES]), ("image", range(100, 124))):
        file = tmp_path / f"{side}.npz"
        np.savez(file, ids=np.array(list(ids)), vectors=random.normal(size=(24, 8)).astype("f4"))
        files.append(file)
    source = StoredVectors(files[0], files[1])
    found = evaluate_source(folder, source, replace(REQUEST, rerank=None))
    page = evaluation_page(found, "shop")
    assert "returned" in page
    assert "explain" not in page


def test_a_part_of_a_split_has_no_page(folder: MugeFolder, model: Path, tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("100\n")
    request = replace(REQUEST, items=tmp_path / "items.txt")
    with pytest.raises(InputError, match="whole split"):
        evaluate_folder(folder, model, request)


def test_xmr_eval_writes_the_page(
    folder: MugeFolder, model: Path, tmp_path: Path, xmr: Callable[..., Any]
) -> None:
    page = tmp_path / "report.html"
    run = xmr("eval", "--checkpoint", model, "--dataset", folder.path, "--report", page, "--json")
    assert run.code == 0, run.err
    assert run.json()["page"] == str(page)
    assert page.read_text("utf-8").lstrip().startswith("<!doctype html>")
    refused = xmr("eval", "--checkpoint", model, "--dataset", folder.path, "--report", "a.png")
    assert refused.code == 2
    assert "a.html" in refused.err
