"""``xmr search``: search an index by text or by image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.failures import excluding_options
from bagformer_cli.cli.hybrid_view import require_fusion, suggestion_of
from bagformer_cli.cli.index_view import warn_incomplete
from bagformer_cli.cli.options import (
    Device,
    IndexModel,
    Runtime,
    SearchedIndex,
    Trust,
)
from bagformer_cli.cli.search_checks import (
    check_queries,
    explain_nothing,
    query_vectors,
    refuse_unused_options,
    require_output,
)
from bagformer_cli.cli.search_view import heading, show_counts, show_results
from bagformer_cli.cli.views import warn_of_photos
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.data.query_files import TextQuery
    from bagformer_cli.index.results import Results
    from bagformer_cli.index.search import Index
    from bagformer_cli.index.search_options import SearchOptions

app = App()


@app.command(
    help=tr(
        "Search an index by text, by image, or by both.\n\n"
        "    xmr search '红色碎花裙' --where \"price < 200 AND category = '连衣裙'\" -k 20\n\n"
        "    xmr search --image photo.jpg\n\n"
        "    xmr search '同款 蓝色' --image photo.jpg --weight 0.5\n\n"
        "    xmr search '连衣裙' --without 红色 --group-by 款号 --sort price --facets\n\n"
        "    xmr search --image photo.jpg --of titles\n\n"
        "    xmr search '红色碎花裙' --output results.html\n\n"
        "    xmr search 'SENYA RX-580S' --fusion rrf\n\n"
        "    xmr search --queries queries.txt -k 100 --output results.trec\n\n"
        "    xmr search --features queries.jsonl\n\n"
        "Search is exact for small indexes; larger ones preselect candidates first. --profile "
        "shows which was used.\n\n"
        "With a text and an image, score = (1 − weight) × text + weight × image, of both mean "
        "scores. The best results of each are scored under both.\n\n"
        "--threshold, --without, --group-by, --facets and --sort work on the best 200 results of a "
        "query, in this order.\n\n"
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
    queries_file: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            metavar=tr("FILE"),
            help=tr("Search for the queries of this file: one per line, or MUGE's JSON lines."),
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help=tr("Search by this image, instead of by text or with it."), show_default=False
        ),
    ] = None,
    weight: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=tr(
                "With a text and --image: share of the image in the score, 0 to 1. Default: 0.5."
            ),
            show_default=False,
        ),
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
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=tr(
                "Leave out results with a lower probability. Needs a calibrated model; 0 to 1."
            ),
            show_default=False,
        ),
    ] = None,
    threshold_score: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help=tr("Leave out results with a lower mean score; −1 to 1."),
            show_default=False,
        ),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help=tr(
                "Leave out products whose title has this word as whole bags: 包 leaves 面包 in. "
                "Products without a title stay."
            ),
            show_default=False,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Show only the best result of each value of this attribute, such as the product of "
                "several photos."
            ),
            show_default=False,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            help=tr("Sort by this attribute: price, or -price for the largest first."),
            show_default=False,
        ),
    ] = None,
    facets: Annotated[
        bool,
        typer.Option("--facets", help=tr("Count the values of text attributes.")),
    ] = False,
    offset: Annotated[
        int, typer.Option(min=0, help=tr("Results before the first one that is shown."))
    ] = 0,
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
                "Default: 0.3."
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
            help=tr(
                "Write the results to a file. NAME.html: a page with their images; NAME.jsonl: a "
                "line for each query; NAME.trec: a TREC run."
            ),
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
    wanted = _read_queries(queries, queries_file, image, features, weight)
    from bagformer_cli.datasets import is_drawn_image
    from bagformer_cli.index.arrange import Arrangement
    from bagformer_cli.index.engines import DEFAULT_INDEX, find_index
    from bagformer_cli.index.run_files import RUN_FILES, write_run
    from bagformer_cli.index.search import Index
    from bagformer_cli.index.search_options import SearchOptions
    from bagformer_cli.index.synonyms import read_synonyms
    from bagformer_cli.outputs import check_output

    if output is not None:
        require_output(output)  # before the search, which may take long
        check_output(output, [*wanted.images, *([] if queries_file is None else [queries_file])])
    is_page = output is not None and output.suffix.lower() not in RUN_FILES
    if index is None:
        index = find_index()
        if index != DEFAULT_INDEX:
            console.info(tr("Searching the index of the newest run: {index}", index=index))
    refuse_unused_options(index, recall, candidates, rerank, beta)
    require_fusion(fusion, lexical_weight, synonyms)
    options = SearchOptions(
        k=k,
        where=where,
        of="image" if of == "images" else "title",
        recall=recall,
        candidates=candidates,
        rerank=rerank,
        beta=beta,
        thumbnails=is_page,
        fusion=fusion,
        lexical_weight=lexical_weight,
        arrangement=Arrangement(
            threshold, threshold_score, tuple(without or ()), group_by, facets, sort, offset
        ),
    )
    with bars.progress() as progress:
        encoder = None
        if features is not None:
            encoder = query_vectors(features, index, rerank)
            wanted = replace(wanted, texts=encoder.names)
        opened = Index.open(
            index, checkpoint, model=encoder, device=device, runtime=runtime, trust=trust,
            progress=progress,
        )  # fmt: skip
        if opened.engine.incomplete:
            warn_incomplete(index)
        if synonyms is not None:
            known = read_synonyms(synonyms, opened.encoder.titles.segmenter)
            options = replace(options, synonyms=known)
        found = _search(opened, wanted, options, weight)
    if features is None:
        opened.encoder.titles.warn_of_cut(console.warn)
    if not all(map(is_drawn_image, wanted.images)):
        warn_of_photos(Path(checkpoint or opened.engine.layout.checkpoint), console.warn)
    if not any(map(len, found)):
        explain_nothing(opened.engine, index, of)
    if output is not None and not is_page:
        written = write_run(output, wanted.with_ids(), found)
        counts = {"index": index, "queries": len(found), "hits": written, "output": str(output)}
        console.result(counts, lambda: show_counts(counts))
        return
    report = {
        "index": index,
        "where": where,
        "of": of,
        "results": _reported(wanted, found, with_facets=facets),
        "plan": found[0].plan,
        "seconds": found[0].seconds,
    }
    if output is not None:
        _write_page(output, wanted, found, options)
        report["output"] = str(output)
    console.result(report, lambda: show_results(report, profile))


@dataclass(frozen=True)
class _Queries:
    """The queries of one command, in its order.

    Attributes:
        texts: Texts; with ``--features``, the ids that stand for their vectors.
        images: Image files; with texts, one that each text is combined with.
        from_file: The queries of ``--queries`` with their ids; None: given by hand.
    """

    texts: list[str]
    images: list[Path]
    from_file: list[TextQuery] | None

    @property
    def names(self) -> list[str]:
        """The name of each query in reports: its text or its path."""
        return [str(query) for query in self.texts or self.images]

    @property
    def combined_image(self) -> Path | None:
        """The image that each text is combined with; None: texts or images are searched alone."""
        return self.images[0] if self.texts and self.images else None

    def with_ids(self) -> list[TextQuery]:
        """Return the queries with their ids; those given by hand are counted from 1."""
        from bagformer_cli.data.query_files import TextQuery

        return self.from_file or [TextQuery(str(n), name) for n, name in enumerate(self.names, 1)]


def _read_queries(
    texts: list[str] | None,
    file: Path | None,
    images: list[Path] | None,
    features: Path | None,
    weight: float | None,
) -> _Queries:
    """Collect the queries of the options; those of ``--features`` are read with the index."""
    from bagformer_cli.data.query_files import read_text_queries

    sources = {"--features": features, "--queries": file, tr("QUERIES"): texts}
    given = [name for name, value in sources.items() if value]
    if len(given) > 1 or (features is not None and images):
        raise excluding_options("xmr search", given if len(given) > 1 else [*given, "--image"])
    from_file = None if file is None else read_text_queries(file)
    if from_file is not None:
        texts = [query.text for query in from_file]
    if features is None:
        check_queries(texts or [], images or [], weight)
    return _Queries(texts or [], images or [], from_file)


def _search(
    opened: Index, wanted: _Queries, options: SearchOptions, weight: float | None
) -> list[Results]:
    """Search for each text, each image, or each text together with the image."""
    from bagformer_cli.index.combined import WEIGHT

    image = wanted.combined_image
    if image is None:
        return opened.search_many(
            wanted.images or wanted.texts, options, images=bool(wanted.images)
        )
    share = WEIGHT if weight is None else weight
    return [opened.search_combined(text, image, share, options) for text in wanted.texts]


def _reported(wanted: _Queries, found: list[Results], *, with_facets: bool) -> list[dict[str, Any]]:
    """Describe the results of each query for the report."""
    image = wanted.combined_image
    return [
        {
            "query": name,
            **({} if image is None else {"image": str(image)}),
            "hits": [hit.to_json() for hit in results.hits],
            "total": results.total,
            **({"facets": results.facets} if with_facets else {}),
            **suggestion_of(results),
        }
        for name, results in zip(wanted.names, found, strict=True)
    ]


def _write_page(
    output: Path, wanted: _Queries, found: list[Results], options: SearchOptions
) -> None:
    """Write the results of all queries as an HTML page."""
    from bagformer_cli.pages.search_results import QueryResults, write_page

    image = wanted.combined_image
    pictures: list[bytes | None] = [path.read_bytes() for path in wanted.images]
    if wanted.texts:  # each text with the one image, or none
        pictures = (pictures or [None]) * len(wanted.texts)
    write_page(
        output,
        [
            QueryResults(heading(name, image), results.hits, picture, options.where, options.k)
            for name, results, picture in zip(wanted.names, found, pictures, strict=True)
        ],
    )
