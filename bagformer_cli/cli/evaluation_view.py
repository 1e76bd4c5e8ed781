"""Print the report of an evaluation."""

from __future__ import annotations

from typing import Any

from bagformer_cli.cli import console
from bagformer_cli.cli.calibration_view import show_calibration
from bagformer_cli.cli.formatting import duration
from bagformer_cli.cli.views import direction_names, show_recall, stage_name
from bagformer_cli.errors import listed
from bagformer_cli.messages import tr


def show_evaluation(report: dict[str, Any]) -> None:
    """Print the report of an evaluation."""
    title = tr(
        "{dataset} {split}: {queries} queries, {items} images; {checkpoint}",
        dataset=report["dataset"],
        split=report["split"],
        queries=report["n_queries"],
        items=report["n_items"],
        checkpoint=report["checkpoint"],
    )
    if _mean_recall(report, "recall") is None:
        console.say(title)
        console.say(tr("Recall is unknown: the answers of this split are hidden."))
    else:
        start = {name: report[name] for name in ("before_training",) if name in report}
        show_recall({**start, **report["stages"]}, title=title)
        _explain_stages(report)
    if report.get("attributes"):
        names = {
            "kind": tr("kind"),
            "colour": tr("colour"),
            "pattern": tr("pattern"),
            "part": tr("colour of a part"),
            "binding": tr("binding (which object has which attribute)"),
            "all": tr("all attributes"),
        }
        console.table(
            [
                tr("first-image accuracy by attribute"),
                tr("% of queries that mention it"),
            ],
            [[names.get(name, name), share] for name, share in report["attributes"].items()],
        )
    if report.get("sets"):
        _show_sets(report["sets"])
    parts = {"encode": tr("encode"), "recall": tr("recall"), "rerank": tr("rerank")}
    facts = {parts.get(name, name): duration(value) for name, value in report["seconds"].items()}
    if "library" in report:
        facts[tr("library")] = report["library"]
        facts[tr("licence")] = report["licence"] or tr("unknown")
    if "features" in report:
        facts |= _features_facts(report["features"])
    if "beta" in report:
        facts[tr("beta (merged score = slow + beta × fast)")] = f"{report['beta']:g}"
    console.facts(facts)
    if "calibration" in report:
        show_calibration(report["calibration"])
    if "submission" in report:
        _show_submission(report)
    if "page" in report:
        console.say(tr("Page written: {path}", path=report["page"]))


def _show_sets(sets: dict[str, Any]) -> None:
    """Print mean recall on each named set of queries: sets as columns, stages as rows."""
    figures = {
        "oracle": tr("oracle: knows what was drawn"),
        "unbound": tr("knows what is there, not what belongs together"),
        "colours": tr("knows shares of colours"),
        "power": tr("difference that 4 of 5 comparisons find"),
    }
    every = list(sets.values())
    rows: list[list[Any]] = [[tr("queries"), *(one["queries"] for one in every)]]
    for stage in every[0]["stages"]:
        means = [one["stages"][stage]["mean_recall"] for one in every]
        rows.append(
            [stage_name(stage), *("–" if mean is None else f"{mean:.1f}" for mean in means)]
        )
    for name in dict.fromkeys(name for one in every for name in one["figures"]):
        known = [one["figures"].get(name) for one in every]
        rows.append(
            [figures.get(name, name), *("–" if each is None else f"{each:.1f}" for each in known)]
        )
    title = tr("text → image, mean recall by set of queries, %")
    console.table(["", *sets], rows, title=title)


def _features_facts(features: dict[str, Any]) -> dict[str, Any]:
    return {
        tr("dimension"): features["dim"],
        tr("vectors per title"): f"{features['vectors_per_text']:g}",
        tr("vectors per image"): f"{features['vectors_per_image']:g}",
        tr("vectors scaled to length 1"): features["scaled"],
    }


def _mean_recall(report: dict[str, Any], stage: str) -> float | None:
    value: float | None = report["stages"][stage]["text_to_image"]["mean_recall"]
    return value


def _explain_stages(report: dict[str, Any]) -> None:
    """Say what the rows rerank and merged are, and whether reranking alone is worse."""
    stages = [name for name in report["stages"] if name.startswith("rerank")]
    if not stages:
        return
    console.say(
        tr(
            "rerank: the best candidates in the order of the cross-encoder alone. merged: in the "
            "order of slow + beta × fast, which is the order of a search with --rerank."
        )
    )
    for stage, both in report.get("gains", {}).items():
        if stage.startswith("merged"):
            _show_gain(stage, both)
    last = stages[-1].removeprefix("rerank")  # "@100" where several K were measured
    recall = _mean_recall(report, "recall") or 0.0
    if (_mean_recall(report, f"rerank{last}") or 0.0) >= recall:
        return
    console.say(
        tr(
            "rerank is lower than recall: the cross-encoder alone orders these candidates worse "
            "than the recall stage."
        )
    )
    if (_mean_recall(report, f"merged{last}") or 0.0) < recall:
        console.say(tr("So is merged: choose beta with --tune-beta, or do not rerank."))


def _show_gain(stage: str, both: dict[str, dict[str, float]]) -> None:
    """Print a stage's mean recall minus that of the recall stage, with intervals."""
    arrows = direction_names()
    gains = [
        tr(
            "{message} ({details})",
            message=f"{arrows[direction]} {gain['mean']:+.1f}",
            details=f"{gain['lower']:+.1f} … {gain['upper']:+.1f}",
        )
        for direction, gain in both.items()
    ]
    console.say(
        tr(
            "{stage} − {recall}, points of mean recall with 95 % intervals over queries: {gains}",
            stage=stage_name(stage),
            recall=stage_name("recall"),
            gains=listed(gains).replace("-", "−"),
        )
    )


def _show_submission(report: dict[str, Any]) -> None:
    """Print where a submission was written and in which order its images are."""
    if report["submission_order"] == "recall":
        order = tr("order of the recall stage")
    elif report["submission_reranked"] >= 10:  # as many as a line of the file has
        order = tr("merged order")
    else:
        order = tr(
            "merged order of the best {n}, then the order of the recall stage",
            n=report["submission_reranked"],
        )
    path = report["submission"]
    console.say(tr("Submission written: {path} ({order})", path=path, order=order))
