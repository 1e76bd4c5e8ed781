"""``xmr search``: search an index by text or by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.failures import excluding_options
from bagformer_cli.cli.formatting import format_value
from bagformer_cli.cli.hybrid_view import (
    part_facts,
    require_fusion,
    show_suggestion,
    suggestion_of,
)
from bagformer_cli.cli.index import warn_incomplete
from bagformer_cli.cli.options import (
    Device,
    IndexModel,
    Runtime,
    SearchedIndex,
    Trust,
    warn_of_photos,
)
from bagformer_cli.errors import InputError, PathError, shell_word
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.engine import Engine
    from bagformer_cli.index.features import StoredQueries

app = App()

SEPARATOR = "\u00a0· "  # no line begins with the dot


@app.command(
    help=tr(
        "Search an index by text or by image.\n\n"
        "    xmr search '红色碎花裙' --where \"price < 200 AND category = '连衣裙'\" -k 20\n\n"
        "    xmr search --image photo.jpg\n\n"
        "    xmr search --image photo.jpg --of titles\n\n"
        "    xmr search '红色碎花裙' --output results.html\n\n"
        "    xmr search 'SENYA RX-580S' --fusion rrf\n\n"
        "    xmr search --features queries.jsonl\n\n"
        "Search is exact for small indexes; larger ones preselect candidates first. --profile "
        "shows which was used.\n\n"
        "--where compares attributes with values: = != < <= > >= IN BETWEEN LIKE IS NULL, joined "
        "by AND, OR, NOT and brackets. Text goes in single quotes, names with special characters "
        "in backticks."
    )
)
def search(
    queries: Annotated[
        list[str] | None, typer.Argument(help=tr("One or more text queries."))
    ] = None,
    index: SearchedIndex = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help=tr("Search by this image instead of by text."), show_default=False),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "Search by the vectors of this file, made by the program that made those of the "
                "index (see `xmr eval --help`)."
            ),
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help=tr("Number of results per query."))] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            help=tr("A filter over id, title and attributes, in SQL."), show_default=False
        ),
    ] = None,
    of: Annotated[
        Literal["images", "titles"],
        typer.Option(help=tr("Compare the query with the products' images or with their titles.")),
    ] = "images",
    rerank: Annotated[
        int,
        typer.Option(min=0, help=tr("Rerank the best N results with the cross-encoder. 0: off.")),
    ] = 0,
    beta: Annotated[
        float | None,
        typer.Option(
            help=tr("Merged score = slow + beta × fast. Default: the model's."), show_default=False
        ),
    ] = None,
    recall: Annotated[
        Literal["auto", "exact", "tokens", "vector"],
        typer.Option(
            help=tr(
                "First stage. exact: late interaction with all products; tokens: candidates by "
                "centroids; vector: candidates by single vectors; auto: exact or tokens, by size."
            )
        ),
    ] = "auto",
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=tr(
                "Candidates, with --recall vector only. A larger number finds more and takes "
                "longer. Default: 200."
            ),
            show_default=False,
        ),
    ] = None,
    fusion: Annotated[
        Literal["none", "rrf", "weighted"],
        typer.Option(
            help=tr(
                "Fuse with a search for the words of titles (BM25), which finds brands and model "
                "codes. rrf: by ranks; weighted: by scores."
            )
        ),
    ] = "none",
    lexical_weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=tr(
                "Share of the words in --fusion weighted; the rest is that of the vectors. "
                "Default: 0.2."
            ),
            show_default=False,
        ),
    ] = None,
    synonyms: Annotated[
        Path | None,
        typer.Option(
            metavar=tr("FILE"),
            help=tr(
                "With --fusion: synonyms of a query's words, one group a line (番茄, 西红柿) or in "
                "one direction (苹果手机 => iphone)."
            ),
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help=tr("Write the results with their images to an HTML page."),
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help=tr("Show what each stage did and its time."))
    ] = False,
    checkpoint: IndexModel = None,
    runtime: Runtime = "torch",
    trust: Trust = False,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Search, write the page, print the results."""
    if features is None:
        _check_queries(queries or [], image or [])
    elif queries or image:
        raise excluding_options("xmr search", ["--features", "--image" if image else tr("QUERIES")])
    names = [str(query) for query in image or queries or []]
    from bagformer_cli.datasets import is_drawn_image
    from bagformer_cli.index.engines import DEFAULT_INDEX, find_index
    from bagformer_cli.index.search import Index, SearchOptions
    from bagformer_cli.index.synonyms import read_synonyms
    from bagformer_cli.outputs import check_output
    from bagformer_cli.pages.html import require_page
    from bagformer_cli.pages.search_results import QueryResults, write_page

    if output is not None:
        require_page(output)  # before the search, which may take long
        check_output(output, image or [])
    if index is None:
        index = find_index()
        if index != DEFAULT_INDEX:
            console.info(tr("Searching the index of the newest run: {index}", index=index))
    _require_used(index, recall, candidates, rerank, beta)
    require_fusion(fusion, lexical_weight, synonyms)
    options = SearchOptions(
        k=k,
        where=where,
        of="image" if of == "images" else "title",
        recall=recall,
        candidates=candidates,
        rerank=rerank,
        beta=beta,
        thumbnails=output is not None,
        fusion=fusion,
        lexical_weight=lexical_weight,
    )
    with bars.progress() as progress:
        encoder = None
        if features is not None:
            encoder = _query_vectors(features, index, rerank)
            names = queries = encoder.names
        opened = Index.open(
            index, checkpoint, model=encoder, device=device, runtime=runtime, trust=trust,
            progress=progress,
        )  # fmt: skip
        if opened.engine.incomplete:
            warn_incomplete(index)
        if synonyms is not None:
            known = read_synonyms(synonyms, opened.encoder.titles.segmenter)
            options = replace(options, synonyms=known)
        found = opened.search_many(image or queries or [], options, images=bool(image))
    if features is None:
        opened.encoder.titles.warn_of_cut(console.warn)
    if not all(map(is_drawn_image, image or [])):
        warn_of_photos(Path(checkpoint or opened.engine.layout.checkpoint), console.warn)
    if not any(map(len, found)):
        _explain_nothing(opened.engine, index, of)
    if output is not None:
        pictures = [path.read_bytes() for path in image] if image else [None] * len(names)
        write_page(
            output,
            [
                QueryResults(name, results.hits, picture, where, k)
                for name, results, picture in zip(names, found, pictures, strict=True)
            ],
        )
    report: dict[str, Any] = {
        "index": index,
        "where": where,
        "of": of,
        "results": [
            {
                "query": name,
                "hits": [hit.to_json() for hit in results.hits],
                **suggestion_of(results),
            }
            for name, results in zip(names, found, strict=True)
        ],
        "plan": found[0].plan,
        "seconds": found[0].seconds,
    }
    if output is not None:
        report["output"] = str(output)
    console.result(report, lambda: show_results(report, profile))


def _query_vectors(features: Path, index: str, rerank: int) -> StoredQueries:
    """Read the queries of ``--features``."""
    from bagformer_cli.index.engines import open_engine
    from bagformer_cli.index.features import read_queries

    if rerank:
        raise excluding_options("xmr search", ["--features", "--rerank"])
    return read_queries(features, open_engine(index))


def _check_queries(queries: list[str], images: list[Path]) -> None:
    """Raise InputError unless there are texts or images, not both, and all can be searched for."""
    if bool(queries) == bool(images):
        message = tr("Give a text query or an image, not both.")
        raise InputError(
            message if queries else tr("There is nothing to search for."),
            where="xmr search",
            expected=tr("a text query, or --image"),
            hint=tr("`{command}` shows its usage.", command="xmr search --help"),
        )
    from bagformer_cli.text.characters import is_blank

    for text in queries:
        if is_blank(text):
            raise InputError(
                tr("A query is empty."),
                found=repr(text),
                expected=tr("at least one visible character"),
            )
    for path in images:
        if path.is_dir():
            raise PathError(tr("This is a folder; a file was expected."), path, "folder")
        if not path.is_file():
            raise PathError(tr("No such file."), path, "missing")


def _require_used(
    index: str, recall: str, candidates: int | None, rerank: int, beta: float | None
) -> None:
    """Raise InputError if an option is given that the others leave without effect."""
    if candidates is not None and recall != "vector" and not index.startswith("qdrant"):
        raise InputError(
            tr("--candidates has an effect with --recall vector only."),
            found=f"--candidates {candidates} --recall {recall}",
            hint=tr("Add --recall vector, or leave out --candidates."),
        )
    if beta is not None and not rerank:
        raise InputError(
            tr("--beta is the weight of a merged score, and nothing is reranked."),
            found=f"--beta {beta:g}",
            hint=tr("Say how many results to rerank: --rerank 50"),
        )


def _explain_nothing(engine: Engine, index: str, of: str) -> None:
    """Raise InputError if no query at all could find a product of this index."""
    hint = tr("`{command}` shows what it holds.", command=f"xmr index info {index}")
    if not engine.count():
        raise InputError(tr("The index is empty."), where=index, hint=hint)
    sides = engine.info()["sides"]
    if sides[of.removesuffix("s")]:
        return
    if of == "titles":
        message, other = tr("No product of this index has a title."), "images"
    else:
        message, other = tr("No product of this index has an image."), "titles"
    if sides[other.removesuffix("s")]:
        hint = tr("Search with --of {side}.", side=other)
    likely = _likely_images(engine) if of == "images" else None
    if likely is not None:
        again = tr(
            "The values of '{name}' look like images: build the index again with --column "
            "image={heading}.",
            name=likely,
            heading=shell_word(likely),
        )
        hint = tr("{sentence} {hint}", sentence=again, hint=hint)
    raise InputError(message, where=index, hint=hint)


def _likely_images(engine: Engine) -> str | None:
    """Return the attribute with the most values that end like image files, or None."""
    names = [name for name, kind in engine.layout.attributes.items() if kind == "str"]
    counts = {
        name: sum(engine.count(f"`{name}` LIKE '%{end}'") for end in (".jpg", ".png", ".webp"))
        for name in names
    }
    return max(names, key=counts.__getitem__) if any(counts.values()) else None


def show_results(report: dict[str, Any], profile: bool = False) -> None:
    """Print the results of each query as a table; with ``profile`` also the stages and times."""
    for one in report["results"]:
        show_suggestion(one)
        if one["hits"]:
            _show_hits(one["query"], one["hits"])
        else:
            console.say(tr("{query}: no results.", query=one["query"]))
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
