"""``xmr search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Device
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Search a catalogue's index by words, or by an image.\n\n"
        "    xmr search '红色碎花裙' --where \"price < 200 AND category = '连衣裙'\" -k 20\n\n"
        "    xmr search --image photo.jpg\n\n"
        "    xmr search --image photo.jpg --of titles\n\n"
        "    xmr search '红色碎花裙' --output results.html\n\n"
        "The search is exact where that is quick enough (it is, far further than one thinks); "
        "--profile says what was done and how long each stage took."
    )
)
def search(
    queries: Annotated[
        list[str] | None, typer.Argument(help=tr("One search or more, in words."))
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "A folder, s3://bucket/path, or qdrant://host:6333/collection. Default: index/, "
                "or the newest run's."
            ),
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(help=tr("An image to search with, instead of words."), show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help=tr("How many results."))] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            help=tr("A filter over id, title and attributes, in SQL."), show_default=False
        ),
    ] = None,
    of: Annotated[
        Literal["images", "titles"],
        typer.Option(help=tr("What the search is compared with: the products' images or titles.")),
    ] = "images",
    rerank: Annotated[
        int, typer.Option(min=0, help=tr("How many of the best the slow scorer sees; 0: none."))
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
                "The first stage: a scan of all lists, an index of their vectors, or one vector "
                "each. auto: the quickest that loses nothing that counts."
            )
        ),
    ] = "auto",
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=tr("Candidates of a first stage of one vector. Default: 200."),
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
        bool, typer.Option("--profile", help=tr("Say what each stage did, and how long it took."))
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help=tr("The model folder. Default: the one the index was built with."),
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, search, print."""
    from bagformer_cli.errors import InputError

    if bool(queries) == bool(image):
        raise InputError(
            tr("A search takes words or an image."),
            where="xmr search",
            hint=tr("`{command}` shows its usage.", command="xmr search --help"),
        )
    asked: list[Any] = list(image or queries or [])
    for words in queries or []:
        if not words.strip():
            raise InputError(tr("A search is empty."), found=repr(words))
    for picture in image or []:
        if not picture.is_file():
            raise InputError(tr("No such file."), where=picture)
    from bagformer_cli.index.engines import find_index
    from bagformer_cli.index.results_page import require_page
    from bagformer_cli.index.search import Index

    if output is not None:
        require_page(output)  # before the search, which may take long

    index = find_index(index)
    opened = Index.open(index, checkpoint, device=device)
    if opened.engine.unfinished:
        console.warn(tr("It was left in the middle of being filled: products are missing."), index)
    found = opened.search_many(
        asked,
        images=bool(image),
        k=k,
        where=where,
        of="image" if of == "images" else "title",
        recall=recall,
        candidates=candidates,
        rerank=rerank,
        beta=beta,
        thumbnails=output is not None,
    )
    if not any(map(len, found)):
        _explain_nothing(opened.engine, index, of)
    names = [str(query) for query in asked]
    if output is not None:
        from bagformer_cli.index.results_page import Found, write_page

        write_page(
            output,
            [
                Found(name, one.hits, Path(name).read_bytes() if image else None)
                for name, one in zip(names, found, strict=True)
            ],
        )
    report: dict[str, Any] = {
        "index": index,
        "where": where,
        "of": of,
        "results": [
            {"query": name, "hits": [hit.to_json() for hit in one.hits]}
            for name, one in zip(names, found, strict=True)
        ],
        "plan": found[0].plan,
        "seconds": found[0].seconds,
    }
    if output is not None:
        report["output"] = str(output)
    console.result(report, lambda: show_results(report, profile))


def _explain_nothing(engine: Any, index: str, of: str) -> None:
    """Raise an error where nothing could be found, whatever was asked for."""
    from bagformer_cli.errors import InputError

    hint = tr("`{command}` says what is in it.", command=f"xmr index info {index}")
    if not engine.count():
        raise InputError(tr("The index is empty."), where=index, hint=hint)
    sides = engine.info()["sides"]
    if sides[of.removesuffix("s")]:
        return
    if of == "titles":
        message, other = tr("No product of the index has a title."), "images"
    else:
        message, other = tr("No product of the index has an image."), "titles"
    if sides[other.removesuffix("s")]:
        hint = tr("Search with --of {side}.", side=other)
    raise InputError(message, where=index, hint=hint)


def show_results(report: dict[str, Any], profile: bool = False) -> None:
    """Print each query's results as a table."""
    stages = {"late": tr("late interaction"), "merged": tr("merged")}
    for one in report["results"]:
        hits = one["hits"]
        if not hits:
            console.say(tr("{query}: nothing found.", query=one["query"]))
            continue
        names = list(dict.fromkeys(name for hit in hits for name in hit["attributes"]))
        slow = any(hit["slow"] is not None for hit in hits)
        columns = [tr("rank"), tr("score"), tr("mean"), *([tr("slow")] if slow else []), tr("id"),
                   tr("title"), *names, tr("stage")]  # fmt: skip
        rows = [
            [
                hit["rank"],
                hit["score"],
                hit["mean"],
                *([hit["slow"]] if slow else []),
                hit["id"],
                hit["title"],
                *(hit["attributes"].get(name) for name in names),
                stages[hit["stage"]],
            ]
            for hit in hits
        ]
        console.table(columns, rows, title=one["query"])
    if profile:
        for step in report["plan"]:
            what = tr("{message} ({details})", message=step["method"], details=step["note"])
            console.say(tr("{place}: {message}", place=step["stage"], message=what))
        console.facts({name: f"{1000 * value:.1f} ms" for name, value in report["seconds"].items()})
    if "output" in report:
        console.say(tr("Results written: {path}", path=report["output"]))
