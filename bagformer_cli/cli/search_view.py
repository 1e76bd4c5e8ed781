"""Print the results of ``xmr search``."""

from __future__ import annotations

from typing import Any

from bagformer_cli.cli import console
from bagformer_cli.cli.formatting import format_value
from bagformer_cli.cli.hybrid_view import part_facts, show_suggestion
from bagformer_cli.messages import tr

SEPARATOR = "\u00a0· "  # no line begins with the dot


def show_results(report: dict[str, Any], profile: bool = False) -> None:
    """Print the results of each query as a table; with ``profile`` also the stages and times."""
    for one in report["results"]:
        show_suggestion(one)
        query = heading(one["query"], one.get("image"))
        if one["hits"]:
            _show_hits(query, one["hits"])
        else:
            console.say(tr("{query}: no results.", query=query))
        for name, values in one.get("facets", {}).items():
            counts = SEPARATOR.join(f"{value['value']} {value['count']}" for value in values)
            console.say(tr("{place}: {message}", place=name, message=counts))
    if profile:
        for step in report["plan"]:
            what = tr("{message} ({details})", message=step["method"], details=step["note"])
            console.say(tr("{place}: {message}", place=_step_name(step["stage"]), message=what))
        console.facts(
            {
                _step_name(name): f"{1000 * value:.1f} ms"
                for name, value in report["seconds"].items()
            }
        )
    if "output" in report:
        console.say(tr("Results written: {path}", path=report["output"]))


def heading(query: str, image: object = None) -> str:
    """Name a query: a text, an image, or both (``image`` is given with a text only)."""
    return query if image is None else f"{query} + {image}"


def show_counts(report: dict[str, Any]) -> None:
    """Print how many results were written to a file."""
    console.facts({tr("queries"): report["queries"], tr("results"): report["hits"]})
    console.say(tr("Results written: {path}", path=report["output"]))


def _step_name(name: str) -> str:
    """Name a step of a search: ``recall.filter`` is the filter of the recall stage."""
    names = {
        "encode": tr("encode"),
        "recall": tr("recall"),
        "late": tr("late interaction"),
        "terms": tr("words"),
        "fusion": tr("fusion"),
        "rerank": tr("rerank"),
        "fetch": tr("read the results"),
        "open": tr("open"),
        "filter": tr("filter"),
        "scan": tr("scan"),
        "rounded": tr("rounded scores"),
    }
    return SEPARATOR.join(names.get(part, part) for part in name.split("."))


def _show_hits(query: str, hits: list[dict[str, Any]]) -> None:
    """Print one line for each result, and its attributes below it.

    The score is the mean over the query's vectors, which is comparable between queries. After a
    rerank it is the merged score; results that were not reranked come last and have none. After a
    fusion it is the fused score.
    """
    reranked = any(hit["stage"] == "merged" for hit in hits)
    fused = any(hit["stage"] == "fused" for hit in hits)
    likely = any(hit["probability"] is not None for hit in hits)
    rows = []
    for hit in hits:
        if reranked:
            score = hit["score"] if hit["slow"] is not None else None
        else:
            score = f"{hit['score']:.4f}" if fused else hit["mean"]
        cells = [hit["rank"], score, hit["id"], hit["title"] or ""]
        if likely:
            cells.insert(2, 100 * hit["probability"])
        rows.append(cells)
    notes = []
    for hit in hits:
        facts = dict(hit["attributes"])
        if hit["group_size"] is not None and hit["group_size"] > 1:
            facts[tr("results of the group")] = hit["group_size"]
        if hit["stage"] == "combined":
            facts[tr("words")] = format_value(hit["text_mean"])
            facts[tr("image")] = format_value(hit["image_mean"])
        if fused:
            facts |= part_facts(hit)
        if reranked:
            facts[tr("fast")] = format_value(hit["fast"])
            if hit["slow"] is not None:
                facts[tr("slow")] = format_value(hit["slow"])
        notes.append(SEPARATOR.join(f"{name} {_shown(value)}" for name, value in facts.items()))
    columns = [tr("rank"), tr("score"), tr("id"), tr("title")]
    if likely:
        columns.insert(2, tr("probability, %"))
    console.table(columns, rows, title=query, notes=notes)


def _shown(value: object) -> str:
    """Write a number of an attribute as the table has it: a year or a code has no separators."""
    if isinstance(value, bool):
        return format_value(value)
    return f"{value:.6g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)
