"""``xmr bench``: speed, measured beside the plain reference way in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.wording import duration
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress

app = App()

PARTS = ("titles", "maxsim", "training")  # what is measured unless one part is named

TITLES = 20_000
"""So many titles are cut, the same ones again where there are fewer."""


@app.command(
    help=tr(
        "Measure titles a second, MaxSim pairs a second and training samples a second, each "
        "beside the plain reference way of doing the same, in one run. Takes about two minutes.\n\n"
        "The figures are medians; look at the ratios, for other work on the machine moves both "
        "sides. Exact search over a generated catalogue on disk, and search through an index of "
        "one, are measured when they are named: the first time writes the catalogue or builds the "
        "index.\n\n"
        "    xmr bench maxsim\n"
        "    xmr bench search --items 1000000 --folder /data/bench\n"
        "    xmr bench index --products kinds\n"
        "    xmr bench index --dim 128 --lancedb-lists"
    )
)
def bench(
    part: Annotated[
        Literal["titles", "maxsim", "training", "search", "index"] | None,
        typer.Argument(
            help=tr("What to measure. Default: all but search and index."), show_default=False
        ),
    ] = None,
    titles_file: Annotated[
        Path | None,
        typer.Option("--titles", help=tr("Titles to cut, one a line. Default: the demo's.")),
    ] = None,
    lexicon: Annotated[
        list[str] | None,
        typer.Option(help=tr("A dictionary beside the built-in ones, for the titles.")),
    ] = None,
    builtin: Annotated[
        bool,
        typer.Option(
            "--builtin/--no-builtin", help=tr("Use the built-in dictionaries, for the titles.")
        ),
    ] = True,
    items: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=tr("Products to search in. Default: 100,000; through an index 50,000."),
            show_default=False,
        ),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help=tr("Vectors of a product."))] = 32,
    dim: Annotated[int, typer.Option(min=16, help=tr("Dimension of a vector."))] = 256,
    first_stage: Annotated[
        bool,
        typer.Option(
            "--first-stage",
            help=tr("Search also as an index does; rounding all vectors once takes long."),
        ),
    ] = False,
    products: Annotated[
        Literal["parts", "kinds"],
        typer.Option(
            help=tr(
                "For the index: products made of their kind's parts, or that differ from others "
                "of their kind by noise alone, which is harder."
            )
        ),
    ] = "parts",
    queries: Annotated[int, typer.Option(min=1, help=tr("Searches through the index."))] = 100,
    lancedb_lists: Annotated[
        bool,
        typer.Option(
            "--lancedb-lists",
            help=tr(
                "LanceDB's own search over lists beside ours, at equal recall; its index takes "
                "minutes to build."
            ),
        ),
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help=tr("Where that catalogue is kept. Default: the cache folder.")),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what was asked for and print its tables."""
    from dataclasses import asdict

    chosen = PARTS if part is None else (part,)
    report: dict[str, Any] = {}
    with bars.progress() as progress:
        if "maxsim" in chosen:
            from bagformer_cli.bench import maxsim

            report["machine"] = maxsim.machine()
            report["maxsim"] = [asdict(row) for row in maxsim.run(progress=progress)]
        if "search" in chosen:
            from bagformer_cli.bench import exact_search
            from bagformer_cli.files import cache_folder

            place = cache_folder() / "bench" if folder is None else folder
            found = exact_search.run(
                place, items=items or 100_000, length=length, dim=dim, first_stage=first_stage,
                progress=progress,
            )  # fmt: skip
            report["search"] = [asdict(row) for row in found]
        if "index" in chosen:
            from bagformer_cli.bench import index
            from bagformer_cli.files import cache_folder

            place = cache_folder() / "bench" if folder is None else folder
            measured = index.run(
                place, items=items or 50_000, length=length, dim=dim, queries=queries,
                products=products, lancedb_lists=lancedb_lists, progress=progress,
            )  # fmt: skip
            report["index"] = asdict(measured)
        if "titles" in chosen:
            report |= _titles(titles_file, lexicon or [], builtin, progress)
        if "training" in chosen:
            from bagformer_cli.bench import training
            from bagformer_cli.config import load_config
            from bagformer_cli.datasets import ensure_store, resolve
            from bagformer_cli.text.from_config import build_titles

            config = load_config("demo")
            dataset = resolve("demo", progress=progress)
            store = ensure_store(dataset, build_titles(config), progress=progress)
            rows = training.run(config, store.split("train"), progress=progress)
            report["training"] = [asdict(row) for row in rows]
    console.result(report, lambda: _show(report))


def _titles(
    file: Path | None, lexicon: list[str], builtin: bool, progress: Progress
) -> dict[str, Any]:
    """Speed over a file of titles or the demo's, with these dictionaries."""
    from dataclasses import asdict

    from bagformer_cli.bench import titles
    from bagformer_cli.config import load_config
    from bagformer_cli.data.muge import iter_queries
    from bagformer_cli.data.title_files import read_titles
    from bagformer_cli.datasets import resolve
    from bagformer_cli.text.dictionaries import read_dictionary
    from bagformer_cli.text.from_config import build_titles

    if file is None:
        folder = resolve("demo", progress=progress)
        texts = [query.text for query in iter_queries(folder.queries_path("train"))]
    else:
        texts = list(read_titles(file))
    if not texts:
        raise InputError(tr("There is no title."), where=file)
    if not builtin and not lexicon:
        raise InputError(
            tr("There is no dictionary."), hint=tr("Give one with --lexicon, or leave --builtin.")
        )
    config = load_config("demo")
    config.text.lexicons = [*(["builtin"] if builtin else []), *lexicon]
    encoder = build_titles(config)
    texts = (texts * -(-TITLES // len(texts)))[:TITLES]
    words = [word for path in lexicon for word in read_dictionary(path).words] or None
    rows = titles.run(encoder, texts, words, progress=progress)
    found = asdict(titles.opening(config.text.lexicons))
    return {"dictionary": found, "titles": [asdict(row) for row in rows]}


def _show(report: dict[str, Any]) -> None:
    if "machine" in report:
        console.facts(report["machine"])
    if "titles" in report:
        dictionary = report["dictionary"]
        console.facts(
            {
                tr("dictionary entries"): f"{dictionary['entries']:,}",
                tr("opening it, cached, seconds"): dictionary["seconds"],
            }
        )
        ratios = ("titles_per_second", "speedup", "time_of_floor")
        console.table(
            [
                tr("titles to tokens and bags, one core"),
                tr("titles/s"),
                tr("times the original"),
                tr("time ÷ cached WordPiece + automaton"),
            ],
            [[row["name"], *(row[ratio] for ratio in ratios)] for row in report["titles"]],
        )
    if "maxsim" in report:
        columns = ["group", "name", "dtype", "pairs_per_second", "gflops", "speedup", "peak_share"]
        columns.append("extra_bytes")
        for row in report["maxsim"]:
            if row["extra_bytes"] is not None:
                row["extra_bytes"] /= 1e6
        console.table(
            [_HEADINGS[column] for column in columns],
            [[row[column] for column in columns] for row in report["maxsim"]],
        )
    if "search" in report:
        columns = ["name", "seconds", "cpu_seconds", "times_reading", "gigabytes", "gflops"]
        if any(row["recall"] is not None for row in report["search"]):
            columns.append("recall")
        console.table(
            [_HEADINGS[column] for column in columns],
            [[row[column] for column in columns] for row in report["search"]],
        )
    if "index" in report:
        _show_index(report["index"])
    if "training" in report:
        console.table(
            [tr("training steps of the demo"), tr("samples/s"), tr("times the plain way")],
            [[r["name"], r["samples_per_second"], r["speedup"]] for r in report["training"]],
        )


def _show_index(report: dict[str, Any]) -> None:
    names = {"rows": tr("rows written"), "optimize": tr("compacted and indexed"),
             "lancedb_lists": tr("LanceDB's index of lists")}  # fmt: skip
    console.facts(
        {
            tr("products scored"): f"{report['items']:,} × {report['length']} × {report['dim']}",
            tr("queries"): report["queries"],
            **{names[name]: duration(value) for name, value in report["build"].items()},
        }
    )
    console.table(
        [tr("way"), tr("recall@10"), tr("p50, ms"), tr("p95, ms"), tr("times the exact scan")],
        [[r["name"], r["recall"], r["p50"], r["p95"], r["faster"]] for r in report["rows"]],
    )
    if report["beside"]:
        console.table(
            [tr("LanceDB's own"), tr("recall@10"), tr("p50, ms"), tr("ours, finding no less"),
             tr("recall@10"), tr("p50, ms"), tr("times as fast")],
            [
                [r["theirs"], r["their_recall"], r["their_p50"], r["ours"], r["our_recall"],
                 r["our_p50"], r["faster"]]
                for r in report["beside"]
            ],
        )  # fmt: skip


_HEADINGS = {
    "seconds": tr("seconds"),
    "cpu_seconds": tr("processor seconds"),
    "times_reading": tr("times the reading"),
    "gigabytes": "GB/s",
    "recall": tr("recall@10"),
    "extra_bytes": tr("extra memory, MB"),
    "group": tr("MaxSim"),
    "name": tr("way"),
    "dtype": tr("type"),
    "pairs_per_second": tr("pairs/s"),
    "gflops": "GFLOP/s",
    "speedup": tr("times the original loop"),
    "peak_share": tr("share of the matrix peak"),
}
