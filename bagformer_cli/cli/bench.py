"""``xmr bench``: measure speed, compared with reference implementations in the same run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json, given_options
from bagformer_cli.cli.bench_gpu import measure_gpu, show_gpu
from bagformer_cli.cli.failures import needed_option
from bagformer_cli.cli.formatting import duration
from bagformer_cli.cli.options import Builtin, Lexicons, chosen_lexicons
from bagformer_cli.messages import tr
from bagformer_cli.progress import Progress

app = App()

DEFAULT_PARTS = ("titles", "maxsim", "training")
TITLES = 20_000  # titles of one measurement; a shorter list is repeated


@app.command(
    help=tr(
        "Benchmark against reference implementations: titles cut into bags, MaxSim scores and "
        "training samples per second. Takes about two minutes.\n\n"
        "Figures are medians. Compare the ratios: other programs on the machine slow both sides "
        "down. Exact search (search) and search through an index (index) use a generated "
        "catalogue on disk and run only if named; the first run writes the catalogue. The kernels "
        "of a GPU (gpu) are checked against float64 and measured, only if named.\n\n"
        "    xmr bench maxsim\n"
        "    xmr bench search --items 1000000 --folder /data/bench\n"
        "    xmr bench index --products kinds\n"
        "    xmr bench index --dim 128 --lancedb-lists\n"
        "    xmr bench gpu"
    )
)
def bench(
    ctx: typer.Context,
    part: Annotated[
        Literal["titles", "maxsim", "training", "search", "index", "gpu"] | None,
        typer.Argument(
            help=tr("Part to measure. Default: titles, maxsim and training."), show_default=False
        ),
    ] = None,
    titles_file: Annotated[
        Path | None,
        typer.Option(
            "--titles",
            help=tr("File with one title per line. Default: the titles of the demo dataset."),
        ),
    ] = None,
    lexicon: Lexicons = None,
    builtin: Builtin = True,
    items: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=tr(
                "Products of the generated catalogue. Default: 100,000 (search), 50,000 (index)."
            ),
            show_default=False,
        ),
    ] = None,
    length: Annotated[int, typer.Option(min=1, help=tr("Vectors per product."))] = 32,
    dim: Annotated[int, typer.Option(min=16, help=tr("Dimension of a vector."))] = 256,
    first_stage: Annotated[
        bool,
        typer.Option(
            "--first-stage",
            help=tr(
                "search: also measure candidate preselection; assigning centroids takes long once."
            ),
        ),
    ] = False,
    products: Annotated[
        Literal["parts", "kinds"],
        typer.Option(
            help=tr(
                "index: products combine parts of their kind, or differ from others of their "
                "kind only by noise (harder)."
            )
        ),
    ] = "parts",
    queries: Annotated[int, typer.Option(min=1, help=tr("index: number of searches."))] = 100,
    lancedb_lists: Annotated[
        bool,
        typer.Option(
            "--lancedb-lists",
            help=tr(
                "index: also measure LanceDB's own multi-vector search at equal recall; its index "
                "takes minutes to build."
            ),
        ),
    ] = False,
    tiny: Annotated[
        bool,
        typer.Option(
            "--tiny",
            help=tr("gpu: run everything once, very small, on a CPU in Triton's interpreter."),
        ),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(min=1, help=tr("gpu: begin no further measurement after this many seconds.")),
    ] = 480,
    folder: Annotated[
        Path | None,
        typer.Option(help=tr("Folder of the generated catalogue. Default: the cache folder.")),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the parts and print their tables."""
    from dataclasses import asdict

    parts = DEFAULT_PARTS if part is None else (part,)
    _refuse_useless(given_options(ctx), parts)
    if folder is not None:
        from bagformer_cli.outputs import check_output_folder

        check_output_folder(folder)
    report: dict[str, Any] = {}
    with bars.progress() as progress:
        if "maxsim" in parts:
            from bagformer_cli.bench import maxsim

            report["machine"] = maxsim.machine()
            report["maxsim"] = [asdict(row) for row in maxsim.run_here(progress)]
        if "search" in parts:
            from bagformer_cli.bench import exact_search
            from bagformer_cli.files import cache_folder

            found = exact_search.run(
                folder or cache_folder() / "bench", items=items or 100_000, length=length, dim=dim,
                first_stage=first_stage, progress=progress,
            )  # fmt: skip
            report["search"] = [asdict(row) for row in found]
        if "index" in parts:
            from bagformer_cli.bench import index
            from bagformer_cli.bench.generated_catalogue import GeneratedCatalogue
            from bagformer_cli.files import cache_folder

            catalogue = GeneratedCatalogue(items or 50_000, length, dim, products)
            measured = index.run(
                folder or cache_folder() / "bench", catalogue, queries=queries,
                lancedb_lists=lancedb_lists, progress=progress,
            )  # fmt: skip
            report["index"] = asdict(measured)
        if "titles" in parts:
            report |= _titles(titles_file, chosen_lexicons(builtin, lexicon), progress)
        if "training" in parts:
            from bagformer_cli.bench import training
            from bagformer_cli.config import load_config
            from bagformer_cli.datasets import ensure_store, resolve
            from bagformer_cli.text.from_config import build_titles

            config = load_config("demo")
            dataset = resolve("demo", progress=progress)
            store = ensure_store(dataset, build_titles(config), progress=progress)
            rows = training.run(config, store.split("train"), progress=progress)
            report["training"] = [asdict(row) for row in rows]
        if "gpu" in parts:
            report["gpu"] = measure_gpu(tiny, seconds, progress)
    console.result(report, lambda: _show(report))
    if not report.get("gpu", {}).get("correct", True):
        raise typer.Exit(1)


def _refuse_useless(given: Iterable[str], parts: Sequence[str]) -> None:
    """Raise if an option is given that no measured part reads."""
    for name in given:
        readers = _READERS.get(name)
        if readers is not None and not set(readers) & set(parts):
            raise needed_option("xmr bench", name, " | ".join(readers))


_READERS = {
    "--titles": ("titles",),
    "--lexicon": ("titles",),
    "--builtin": ("titles",),
    "--items": ("search", "index"),
    "--length": ("search", "index"),
    "--dim": ("search", "index"),
    "--folder": ("search", "index"),
    "--first-stage": ("search",),
    "--products": ("index",),
    "--queries": ("index",),
    "--lancedb-lists": ("index",),
    "--tiny": ("gpu",),
    "--seconds": ("gpu",),
}
"""Option to the parts that read it."""


def _titles(file: Path | None, lexicons: list[str], progress: Progress) -> dict[str, Any]:
    """Measure cutting the titles of a file, or of the demo dataset."""
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
    config = load_config("demo")
    config.text.lexicons = lexicons
    encoder = build_titles(config)
    texts = (texts * -(-TITLES // len(texts)))[:TITLES]
    own = [name for name in lexicons if name != "builtin"]
    words = [word for path in own for word in read_dictionary(path).words] or None
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
                tr("loading them from the cache, s"): dictionary["seconds"],
            }
        )
        ratios = ("titles_per_second", "speedup", "time_of_floor")
        console.table(
            [
                tr("titles to tokens and bags, one core"),
                tr("titles/s"),
                tr("× original"),
                tr("time ÷ cached WordPiece + automaton"),
            ],
            [[row["name"], *(row[ratio] for ratio in ratios)] for row in report["titles"]],
        )
    if "maxsim" in report:
        columns = ["group", "name", "dtype", "pairs_per_second", "gflops", "speedup", "peak_share",
                   "extra_bytes"]  # fmt: skip
        for row in report["maxsim"]:
            if row["extra_bytes"] is not None:
                row["extra_bytes"] /= 1e6
            row["pairs_per_second"] = row["failure"] or row["pairs_per_second"]
        _show_rows(report["maxsim"], columns)
    if "search" in report:
        columns = ["name", "seconds", "cpu_seconds", "times_reading", "gigabytes", "gflops"]
        if any(row["recall"] is not None for row in report["search"]):
            columns.append("recall")
        _show_rows(report["search"], columns)
    if "index" in report:
        _show_index(report["index"])
    if "gpu" in report:
        show_gpu(report["gpu"])
    if "training" in report:
        console.table(
            [tr("training steps of the demo"), tr("samples/s"), tr("× reference")],
            [[r["name"], r["samples_per_second"], r["speedup"]] for r in report["training"]],
        )


def _show_rows(rows: list[dict[str, Any]], columns: list[str]) -> None:
    headings = [_HEADINGS[column] for column in columns]
    console.table(headings, [[row[column] for column in columns] for row in rows])


def _show_index(report: dict[str, Any]) -> None:
    names = {"rows": tr("rows written"), "optimize": tr("compacted and indexed"),
             "lancedb_lists": tr("LanceDB's multi-vector index")}  # fmt: skip
    size = f"{report['items']:,} × {report['length']} × {report['dim']}"
    console.facts(
        {
            tr("products × vectors × dimension"): size,
            tr("queries"): report["queries"],
            **{names[name]: duration(value) for name, value in report["build"].items()},
        }
    )
    console.table(
        [tr("method"), tr("recall@10"), tr("p50, ms"), tr("p95, ms"), tr("× exact scan")],
        [[r["name"], r["recall"], r["p50"], r["p95"], r["faster"]] for r in report["rows"]],
    )
    if report["comparisons"]:
        console.table(
            [tr("LanceDB"), tr("recall@10"), tr("p50, ms"), tr("xmr at the same recall or more"),
             tr("recall@10"), tr("p50, ms"), tr("× LanceDB")],
            [
                [r["theirs"], r["their_recall"], r["their_p50"], r["ours"], r["our_recall"],
                 r["our_p50"], r["faster"]]
                for r in report["comparisons"]
            ],
        )  # fmt: skip


_HEADINGS = {
    "seconds": tr("seconds"),
    "cpu_seconds": tr("CPU seconds"),
    "times_reading": tr("time ÷ reading the file"),
    "gigabytes": "GB/s",
    "recall": tr("recall@10"),
    "extra_bytes": tr("extra memory, MB"),
    "group": tr("MaxSim"),
    "name": tr("method"),
    "dtype": tr("type"),
    "pairs_per_second": tr("pairs/s"),
    "gflops": "GFLOP/s",
    "speedup": tr("× original loop"),
    "peak_share": tr("share of the matrix peak"),
}
