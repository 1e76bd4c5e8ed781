"""The page of ``xmr report``: curves, final figures and settings of training runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

from bagformer_cli import __version__
from bagformer_cli.config.settings import as_yaml
from bagformer_cli.messages import tr
from bagformer_cli.models.runs import short_names
from bagformer_cli.outputs import write_output
from bagformer_cli.pages.charts import UNLIMITED, Line, line_chart, line_style
from bagformer_cli.pages.html import render, require_page
from bagformer_cli.training.metrics_log import LOSS_NAMES
from bagformer_cli.training.run_history import RunHistory, differing_settings

_FIRST_CHARTS = {
    "text_to_image": tr("validation mean recall, text → image, %"),
    "image_to_text": tr("validation mean recall, image → text, %"),
    "loss": tr("loss"),
}
_LAST_CHARTS = {
    "learning_rate": tr("learning rate"),
    "gradient_norm": tr("gradient norm before clipping"),
    "pairs_per_second": tr("pairs per second"),
    "data_wait_share": tr("share of the time spent waiting for data"),
    "memory_mb": tr("memory, MB"),
    "itm_accuracy": tr("ITM accuracy"),
    "temperature": tr("temperature"),
}
_WITHOUT_CHART = {"epoch", "seconds", "samples_per_second"}
_LOGARITHMIC = {"gradient_norm"}
_LIMITS = {
    "text_to_image": (0.0, 100.0),
    "image_to_text": (0.0, 100.0),
    "pairs_per_second": (0.0, math.inf),
    "data_wait_share": (0.0, 1.0),
    "itm_accuracy": (0.0, 1.0),
    "memory_mb": (0.0, math.inf),
}


def write_training_page(path: Path, histories: Sequence[RunHistory]) -> None:
    """Write the page of one run or of several.

    Args:
        path: The file.
        histories: The runs, at least one.

    Raises:
        InputError: The file name does not end in ``.html`` or ``.htm``.
    """
    require_page(path)
    write_output(path, training_page(histories))


def training_page(histories: Sequence[RunHistory]) -> str:
    """Return the page of one run or of several; see :func:`write_training_page`."""
    names = short_names([str(history.run) for history in histories])
    if len(histories) == 1:
        title = tr("Training of {run}", run=names[0])
        differing = tr("Settings that differ from the defaults")
    else:
        title = tr("{n} training runs", n=len(histories))
        differing = tr("Settings that differ between the runs")
    differing_rows = _setting_rows(differing_settings(histories), histories)
    every = dict.fromkeys(name for history in histories for name in history.settings)
    return render(
        "training.html",
        title=title,
        facts=[f"xmr {__version__}", date.today().isoformat()],
        remarks=[remark for history in histories for remark in history.remarks],
        names=names,
        runs=[(name, *line_style(number)) for number, name in enumerate(names)],
        charts=_charts(histories, names),
        charts_heading=tr("Curves"),
        dotted=tr("Dotted: the loss of a model that guesses. Each point of a loss is the mean over "
                  "the steps since the point before it."),
        figures=(tr("Final figures"), tr("run"), _figure_rows(histories)),
        differing=(differing, tr("setting"), differing_rows),
        settings=(tr("All settings"), tr("setting"), _setting_rows(every, histories)),
    )  # fmt: skip


def _figure_rows(histories: Sequence[RunHistory]) -> list[tuple[str, list[str]]]:
    """Return the name of each final figure and its value in each run; without those of no run."""
    figures = [history.figures() for history in histories]
    formats = {
        "loss": (tr("loss"), ".3f"),
        "start_mean_recall": (tr("recall before training, %"), ".2f"),
        "mean_recall": (tr("best recall, %"), ".2f"),
        "best_step": (tr("at step"), ",d"),
        "image_to_text": (tr("image → text, %"), ".2f"),
        "seconds": (tr("seconds of training"), ",.1f"),
        "pairs_per_second": (tr("pairs/s"), ",.1f"),
        "data_wait_share": (tr("waiting for data"), ".1%"),
        "memory_mb": (tr("memory, MB"), ",.0f"),
        "started": (tr("started"), ""),
        "machine": (tr("machine"), ""),
        "xmr": ("xmr", ""),
    }
    rows = [
        (tr("state"), [state_name(history) for history in histories]),
        (tr("steps"), [steps_done(one) for one in figures]),
    ]
    for key, (name, form) in formats.items():
        if any(one[key] is not None for one in figures):
            values = ["–" if one[key] is None else format(one[key], form) for one in figures]
            if key == "started":  # without seconds and time zone
                values = [value[:16].replace("T", " ") for value in values]
            rows.append((name, values))
    return rows


def steps_done(figures: Mapping[str, Any]) -> str:
    """Return the steps of a run in words: ``60``, or ``40 of 60`` if it is not complete."""
    steps, total = f"{figures['steps']:,}", figures["total_steps"]
    if total is None or figures["state"] == "complete":
        return steps
    return tr("{n} of {total}", n=steps, total=f"{total:,}")


def state_name(history: RunHistory) -> str:
    """Return how a run ended, in words."""
    return {
        "complete": tr("complete"),
        "stopped": tr("stopped before its last step"),
        "not ended": tr("still training, or killed"),
    }[history.state]


def _charts(histories: Sequence[RunHistory], names: Sequence[str]) -> list[Markup]:
    """Draw recall, losses, then the other figures; a figure that no run has is left out."""
    recorded = dict.fromkeys(name for history in histories for name in history.curves)
    known = {**_FIRST_CHARTS, **_LAST_CHARTS}
    others = [
        name for name in recorded
        if name not in known and name not in _WITHOUT_CHART and not name.endswith("_weight")
    ]  # fmt: skip
    losses = sorted(name for name in others if name.endswith("_loss"))
    details = sorted(set(others) - set(losses))
    charts = []
    for name in (*_FIRST_CHARTS, *losses, *_LAST_CHARTS, *details):
        if name not in recorded:
            continue
        lines = [
            Line(own, *history.curves[name], number, history.guesses.get(name))
            for number, (own, history) in enumerate(zip(names, histories, strict=True))
            if name in history.curves
        ]
        if name in losses:
            own_name = LOSS_NAMES.get(name, name.removesuffix("_loss"))
            title = tr("{name} loss", name=own_name)
        else:
            title = known.get(name, name.replace("_", " "))
        charts.append(
            line_chart(
                title,
                lines,
                tr("step"),
                logarithmic=name in _LOGARITHMIC,
                limits=_LIMITS.get(name, UNLIMITED),
            )
        )
    return charts


def _setting_rows(
    names: Iterable[str], histories: Sequence[RunHistory]
) -> list[tuple[str, list[str]]]:
    """Return the values of settings in each run; a dash where a run has no such setting."""
    rows = []
    for name in names:
        having = [(name in one.settings, one.settings.get(name)) for one in histories]
        rows.append((name, [as_yaml(value) if known else "–" for known, value in having]))
    return rows
