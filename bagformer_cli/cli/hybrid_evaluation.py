"""``xmr eval --hybrid``: measure hybrid search in an index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.failures import excluding_options, needed_option
from bagformer_cli.messages import tr

COPIED_SHARE = 0.1
"""Share of queries that are titles of their answers, from which on a warning says so."""


def evaluate_hybrid(
    index: str, dataset: str | None, split: str, checkpoint: Path | None, others: Sequence[str]
) -> dict[str, Any]:
    """Measure hybrid search in an index with the queries of a dataset.

    Args:
        index: The address of the index.
        dataset: The dataset.
        split: The split whose queries are measured.
        checkpoint: The model; None: that of the index.
        others: Options that were given and have no effect here.

    Raises:
        InputError: An option has no effect, or index and dataset do not fit.
    """
    if others:
        raise excluding_options("xmr eval", ["--hybrid", *others])
    if dataset is None:
        raise needed_option("xmr eval", "--hybrid", tr("--dataset FOLDER"))
    from bagformer_cli.datasets import resolve
    from bagformer_cli.evaluation.hybrid import (
        count_copied_titles,
        judged_queries,
        measure_hybrid,
    )
    from bagformer_cli.index.search import Index

    with bars.progress() as progress:
        folder = resolve(dataset, progress=progress)
        opened = Index.open(index, checkpoint, progress=progress)
        opened.engine.require_terms()
        measured = judged_queries(folder, split, opened)
        if split == "valid":
            tuning, measured = measured.halves()
        else:
            tuning = judged_queries(folder, "valid", opened)
        copied = count_copied_titles(opened, measured)
        result = measure_hybrid(opened, tuning, measured)
    if copied >= COPIED_SHARE * len(measured.texts):
        console.warn(
            tr(
                "{n} of {total} queries are the title of their answer: the figures of the words "
                "say nothing. Build the index of a table with the sellers' titles.",
                n=copied,
                total=len(measured.texts),
            )
        )
    return {
        "dataset": dataset,
        "split": split,
        "index": index,
        "n_queries": len(measured.texts),
        "n_tuning_queries": len(tuning.texts),
        "copied_titles": copied,
        **result.to_json(),
    }


def show_hybrid(report: dict[str, Any]) -> None:
    """Print nDCG@10 of each way to search, and what each fusion gains."""
    names = {"vectors": tr("vectors"), "words": tr("words")}
    rows = [
        [names.get(name, name), *(f"{one[bound]:.2f}" for bound in ("mean", "low", "high"))]
        for name, one in report["ndcg@10"].items()
    ]
    rows += [
        [
            " - ".join(names.get(part, part) for part in name.split(" - ")),
            *(f"{one[bound]:+.2f}" for bound in ("mean", "low", "high")),
        ]
        for name, one in report["gains"].items()
    ]
    columns = [tr("search"), "nDCG@10", tr("from"), tr("to")]
    title = tr(
        "{dataset} · {split} · {n} queries",
        dataset=report["dataset"],
        split=report["split"],
        n=report["n_queries"],
    )
    console.table(columns, rows, title=title)
    console.say(
        tr(
            "Use it: xmr search … --fusion weighted --lexical-weight {weight}",
            weight=f"{report['lexical_weight']:g}",
        )
    )
