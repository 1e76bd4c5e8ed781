"""Print a calibration: what was fitted, and how reliable its probabilities are."""

from __future__ import annotations

from typing import Any

from bagformer_cli.cli import console
from bagformer_cli.messages import tr


def show_calibration(report: dict[str, Any]) -> None:
    """Print the fits of :func:`~bagformer_cli.evaluation.calibration.calibrate_folder`."""
    names = {"text_to_image": tr("text → image"), "image_to_text": tr("image → text")}
    for direction, name in names.items():
        if direction in report:
            _show_fit(name, report[direction])
    console.say(tr("Calibration written: {path}", path=report["path"]))


def _show_fit(name: str, fit: dict[str, Any]) -> None:
    console.say()
    console.table(
        [tr("probability"), tr("pairs"), tr("mean predicted, %"), tr("matching, %")],
        [
            [
                f"{100 * one['low']:.0f}–{100 * one['high']:.0f} %",
                f"{one['pairs']:,}",
                100 * one["predicted"],
                100 * one["matching"],
            ]
            for one in fit["bins"]
        ],
        title=tr(
            "{direction}: probability of the first {k} results, on held-out queries",
            direction=name,
            k=fit["first"],
        ),
    )
    losses = fit["log_losses"]
    console.facts(
        {
            tr("queries"): f"{fit['queries']:,}",
            tr("pairs"): tr(
                "{n}, of which {m} match", n=f"{fit['pairs']:,}", m=f"{fit['matching']:,}"
            ),
            tr("method"): fit["method"],
            tr("held-out log loss"): tr(
                "platt {platt}, isotonic {isotonic}, base rate {base}",
                platt=f"{losses['platt']:.3f}",
                isotonic=f"{losses['isotonic']:.3f}",
                base=f"{losses['base_rate']:.3f}",
            ),
            tr("Brier score"): f"{fit['brier']:.3f}",
            tr("ECE (mean distance of predicted and true share)"): f"{fit['ece']:.3f}",
        }
    )
