"""Format the rows of MUGE's protocol for ``muge_protocol.py``: files, figures, hours.

A row's figures stand with the published ones and the difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple

from muge_tables import BAGFORMER_SOURCE, CHINESE_CLIP_SOURCE, ROWS, Figures, Row
from trials import Result, markdown_table

NAMES = ("R@1", "R@5", "R@10", "mean")
KEYS = ("recall@1", "recall@5", "recall@10", "mean_recall")
UNKNOWN = "–"


def own_figures(result: Result) -> Figures:
    """Return the figures of a row's result, in percent."""
    return Figures(*(float(result["figures"][key]) for key in KEYS))


def differences(ours: Figures, published: Figures | None) -> list[str]:
    """Return the text of ours minus published for each figure; a dash without published ones."""
    if published is None:
        return [UNKNOWN] * len(NAMES)
    pairs = zip(astuple(ours), astuple(published), strict=True)
    return [f"{own - theirs:+.1f}" for own, theirs in pairs]


def _texts(figures: Figures | None) -> list[str]:
    return [UNKNOWN] * 4 if figures is None else [f"{value:.1f}" for value in astuple(figures)]


def figures_table(results: Mapping[str, Result], *, dry: bool = False) -> list[str]:
    """Return a table for the terminal: our figures, the published ones and the difference.

    Args:
        results: Row name to result.
        dry: Add that the figures of a dry run mean nothing.
    """
    heading = f"{'row':<22}{'':<12}" + "".join(f"{name:>8}" for name in NAMES)
    lines = ["Text to image, validation split, all images are candidates, in percent", "", heading]
    for name, result in results.items():
        ours, published = own_figures(result), ROWS[name].published
        kinds = {
            "ours": _texts(ours),
            "published": _texts(published),
            "difference": differences(ours, published),
        }
        for first, (kind, values) in enumerate(kinds.items()):
            label = name if first == 0 else ""
            lines.append(f"{label:<22}{kind:<12}" + "".join(f"{value:>8}" for value in values))
    lines += ["", *_sources(results)]
    if dry:
        lines.append("A dry run: the weights are random, so these figures mean nothing.")
    return lines


def results_page(results: Mapping[str, Result]) -> list[str]:
    """Return the same figures as a Markdown table, one line a row, with their sources."""
    columns = [f"{name}, {kind}" for kind in ("ours", "published") for name in NAMES]
    rows = []
    for name, result in results.items():
        ours, published = own_figures(result), ROWS[name].published
        rows.append([name, *_texts(ours), *_texts(published), differences(ours, published)[-1]])
    table = markdown_table(["row", *columns, "difference of the mean"], rows)
    return [*table, "", *_sources(results)]


def _sources(results: Mapping[str, Result]) -> list[str]:
    """Return the sources of the published figures of these rows, one line each."""
    kinds = {ROWS[name].is_bagformer for name in results}
    sources = {False: CHINESE_CLIP_SOURCE, True: BAGFORMER_SOURCE}
    return [f"{source}." for kind, source in sources.items() if kind in kinds]


def rows_list(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the rows with their published mean recall and the files that they need.

    Args:
        missing: Row name to the files that the folder of weights does not have.
    """
    lines = [f"{'row':<22}{'published mean':>15}   weights"]
    for name, files in missing.items():
        published = ROWS[name].published
        mean = UNKNOWN if published is None else f"{published.mean:.1f}"
        lines.append(f"{name:<22}{mean:>15}   {'missing:' if files else 'there'}")
        if files:
            lines.append(f"    {', '.join(files)}")
    return lines


def hours_text(row: Row, estimate: Result | None) -> str:
    """Return one line with the hours of a row's training on this machine.

    Args:
        row: The row.
        estimate: The JSON of ``xmr estimate``; None: the row trains nothing.
    """
    if estimate is None:
        return f"{row.name}: no training"
    seconds = estimate["probe"]["training_seconds"]
    time = "its number of steps is not known" if seconds is None else f"{seconds / 3600:.2f} h"
    steps = estimate["probe"]["steps"]
    return f"{row.name}: {time} (xmr estimate, {steps} steps on {estimate['machine']})"
