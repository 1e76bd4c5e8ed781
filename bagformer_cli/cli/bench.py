"""``xmr bench``: speed, measured beside the plain reference way in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()

PARTS = ("titles", "maxsim", "training")


@app.command(
    help=tr(
        "Measure titles a second, MaxSim pairs a second and training samples a second, each "
        "beside the plain reference way of doing the same, in one run. Takes about two minutes.\n\n"
        "The figures are medians; look at the ratios, for other work on the machine moves both "
        "sides.\n\n"
        "    xmr bench maxsim"
    )
)
def bench(
    part: Annotated[
        Literal["titles", "maxsim", "training"] | None,
        typer.Argument(help=tr("What to measure. Default: everything."), show_default=False),
    ] = None,
    titles_file: Annotated[
        Path | None,
        typer.Option("--titles", help=tr("Titles to cut, one a line. Default: the demo's.")),
    ] = None,
    lexicon: Annotated[
        list[str] | None,
        typer.Option(help=tr("A dictionary beside the built-in ones, for the titles.")),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what was asked for and print its tables."""
    from dataclasses import asdict

    chosen = PARTS if part is None else (part,)
    report: dict[str, Any] = {}
    with console.progress() as progress:
        if "maxsim" in chosen:
            from bagformer_cli.bench import maxsim

            report["machine"] = maxsim.machine()
            report["maxsim"] = [asdict(row) for row in maxsim.run(progress=progress)]
        if {"titles", "training"} & set(chosen):
            from bagformer_cli.bench import titles, training
            from bagformer_cli.config import load_config
            from bagformer_cli.data.datasets import ensure_store, resolve
            from bagformer_cli.data.titles import read_titles
            from bagformer_cli.text.build import build_titles

            config = load_config("demo")
            config.text.lexicons = [*config.text.lexicons, *(lexicon or [])]
            encoder = build_titles(config)
            store = ensure_store(resolve("demo", progress=progress), encoder, progress=progress)
            split = store.split("train")
            if "titles" in chosen:
                texts = list(split.texts) if titles_file is None else list(read_titles(titles_file))
                texts *= -(-20_000 // len(texts))
                rows = titles.run(encoder, texts[:20_000], progress=progress)
                report["titles"] = [asdict(row) for row in rows]
            if "training" in chosen:
                rows_ = training.run(config, split, progress=progress)
                report["training"] = [asdict(row) for row in rows_]
    console.result(report, lambda: _show(report))


def _show(report: dict[str, Any]) -> None:
    if "machine" in report:
        console.facts(report["machine"])
    if "titles" in report:
        console.table(
            [tr("titles to tokens and bags"), tr("titles/s"), tr("times the plain way")],
            [[r["name"], r["titles_per_second"], r["speedup"]] for r in report["titles"]],
        )
    if "maxsim" in report:
        columns = ["group", "name", "dtype", "pairs_per_second", "gflops", "speedup", "peak_share"]
        shown = [column for column in columns if column in report["maxsim"][0]]
        console.table(
            [_HEADINGS[column] for column in shown],
            [[row[column] for column in shown] for row in report["maxsim"]],
        )
    if "training" in report:
        console.table(
            [tr("training steps of the demo"), tr("samples/s"), tr("times the plain way")],
            [[r["name"], r["samples_per_second"], r["speedup"]] for r in report["training"]],
        )


_HEADINGS = {
    "group": tr("MaxSim"),
    "name": tr("way"),
    "dtype": tr("type"),
    "pairs_per_second": tr("pairs/s"),
    "gflops": "GFLOP/s",
    "speedup": tr("times the original loop"),
    "peak_share": tr("share of the matrix peak"),
}
