"""``xmr search``: search an index by text or by image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

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
    warn_of_photos,
)
from bagformer_cli.cli.search_checks import (
    check_queries,
    explain_nothing,
    query_vectors,
    require_output,
    require_used,
)
from bagformer_cli.cli.search_view import heading, show_counts, show_results
from bagformer_cli.messages import tr

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
    from bagformer_cli.data.query_files import TextQuery, read_text_queries

    sources = {"--features": features, "--queries": queries_file, tr("QUERIES"): queries}
    given = [name for name, value in sources.items() if value]
    if len(given) > 1 or (features is not None and image):
        raise excluding_options("xmr search", given if len(given) > 1 else [*given, "--image"])
    asked = None if queries_file is None else read_text_queries(queries_file)
    if asked is not None:
        queries = [query.text for query in asked]
    if features is None:
        check_queries(queries or [], image or [], weight)
    names = [str(query) for query in queries or image or []]
    beside = image[0] if queries and image else None
    from bagformer_cli.datasets import is_drawn_image
    from bagformer_cli.index.arrange import Arrangement
    from bagformer_cli.index.combined import WEIGHT
    from bagformer_cli.index.engines import DEFAULT_INDEX, find_index
    from bagformer_cli.index.run_files import RUN_FILES, write_run
    from bagformer_cli.index.search import Index
    from bagformer_cli.index.search_options import SearchOptions
    from bagformer_cli.index.synonyms import read_synonyms
    from bagformer_cli.outputs import check_output
    from bagformer_cli.pages.search_results import QueryResults, write_page

    if output is not None:
        require_output(output)  # before the search, which may take long
        inputs = [*(image or []), *([] if queries_file is None else [queries_file])]
        check_output(output, inputs)
    is_page = output is not None and output.suffix.lower() not in RUN_FILES
    if index is None:
        index = find_index()
        if index != DEFAULT_INDEX:
            console.info(tr("Searching the index of the newest run: {index}", index=index))
    require_used(index, recall, candidates, rerank, beta)
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
        if queries and beside is not None:
            share = WEIGHT if weight is None else weight
            found = [opened.search_combined(text, beside, share, options) for text in queries]
        else:
            found = opened.search_many(image or queries or [], options, images=bool(image))
    if features is None:
        opened.encoder.titles.warn_of_cut(console.warn)
    if not all(map(is_drawn_image, image or [])):
        warn_of_photos(Path(checkpoint or opened.engine.layout.checkpoint), console.warn)
    if not any(map(len, found)):
        explain_nothing(opened.engine, index, of)
    if output is not None and not is_page:
        ids = asked or [TextQuery(str(n), name) for n, name in enumerate(names, 1)]
        written = write_run(output, ids, found)
        counts = {"index": index, "queries": len(found), "hits": written, "output": str(output)}
        console.result(counts, lambda: show_counts(counts))
        return
    if output is not None:
        pictures = [path.read_bytes() for path in image] if image else [None]
        if len(pictures) < len(names):  # each text with the one image, or none
            pictures = pictures * len(names)
        write_page(
            output,
            [
                QueryResults(heading(name, beside), results.hits, picture, where, k)
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
                **({} if beside is None else {"image": str(beside)}),
                "hits": [hit.to_json() for hit in results.hits],
                "total": results.total,
                **({"facets": results.facets} if facets else {}),
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
