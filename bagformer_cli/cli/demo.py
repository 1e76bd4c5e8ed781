"""``xmr demo``: the whole way once, on drawn products, without any download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()

EPOCHS = 20
"""Of fine-tuning, after pretraining; without it the configuration has 26."""


@app.command(
    help=tr(
        "Go the whole way once: draw 3,000 products with Chinese titles, preprocess, pretrain and "
        "train a small bag-wise model, evaluate it with rerank, score a picture, build an index "
        "and search it. Takes a few minutes on two cores; downloads nothing. Leaves data/demo, "
        "two runs under runs/, image.jpg, and search.html with the pictures that were found."
    )
)
def demo(
    output_dir: Annotated[
        Path, typer.Option(help=tr("Where data/, runs/, image.jpg and search.html go."))
    ] = Path(),
    seed: Annotated[int, typer.Option(help=tr("Sets everything random in training."))] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw, preprocess, pretrain, train, evaluate, score, search."""
    started = time.perf_counter()
    from bagformer_cli.config import load_config
    from bagformer_cli.datasets import ensure_store, resolve

    first = load_config("pretrain_demo", [f"seed={seed}"])
    settings = load_config("demo", [f"seed={seed}", f"training.epochs={EPOCHS}"])
    with bars.progress() as progress:
        console.info(tr("1  Drawing products and writing them as MUGE files"))
        folder = resolve("demo", root=output_dir, progress=progress)
        console.info(tr("2  Titles to entity bags, images to a store"))
        from bagformer_cli.training.run import free_run_folder, new_model, start_run

        store = ensure_store(folder, new_model(first).titles, progress=progress)
        runs = output_dir / "runs"
        pretrained, run = (free_run_folder(runs, name) for name in ("demo-pretrained", "demo"))
        settings.training.checkpoint = str(pretrained / "last")
        stages = (
            (tr("3  Pretraining on small pictures in {run}", run=pretrained), first, pretrained,
             "pretrain_demo"),
            (tr("4  Training a bag-wise model in {run}", run=run), settings, run, "demo"),
        )  # fmt: skip
        for what, config, place, template in stages:
            console.info(what)
            result = start_run(
                config, store, place, new_model(config), template=template, progress=progress
            )
            if result.interrupted:
                console.info(
                    tr("Stopped. Go on with: xmr train --resume --output-dir {run}", run=place)
                )
                raise typer.Exit(130)
        console.info(tr("5  Evaluating on combinations that training never showed"))
        from bagformer_cli.api import load
        from bagformer_cli.evaluation.attributes import first_image_accuracy
        from bagformer_cli.evaluation.evaluate import evaluate

        retriever = load(run / "best")
        valid = store.split("valid")
        found = evaluate(retriever.model, valid, settings.evaluation, progress=progress)
    picture, titles = _example(valid, found, output_dir / "image.jpg")
    vectors = retriever.encode_texts(titles)
    scores = retriever.score(retriever.encode_images([picture]), vectors)
    console.info(tr("6  Building an index of the validation pictures and searching it"))
    with bars.progress() as progress:
        searched = _search(retriever.model, folder.path, run, picture, titles, output_dir, progress)
    report: dict[str, Any] = {
        "dataset": "demo",
        "split": "valid",
        **found.to_json(),
        "attributes": first_image_accuracy(folder.path, valid, found.best.positions[:, 0]),
        "checkpoint": str(run / "best"),
        "score": {
            "image": str(picture),
            "titles": titles,
            "text_to_image": scores.t2i[:, 0].tolist(),
            "image_to_text": scores.i2t[0].tolist(),
            "bags": [retriever.bags(title) for title in titles],
            "checkpoint": str(run / "best"),
        },
        "search": searched,
        "total_seconds": round(time.perf_counter() - started, 1),
    }
    console.result(report, lambda: _show(report, vectors.lengths.tolist(), output_dir))


def _example(valid: Any, found: Any, path: Path) -> tuple[Path, list[str]]:
    """A picture to play with, and three titles: one of its own and two of its near misses.

    Its own is the first that finds it: how many do not, the table says.
    """
    from bagformer_cli.files import atomic_file

    query = int(found.ranks["text_to_image"].argmin())
    image = int(valid.items[valid.item_offsets[query]])
    with atomic_file(path) as temporary:
        temporary.write_bytes(valid.image_bytes(image))
    own = str(valid.texts[query])
    near = sorted(
        (str(text) for text in valid.texts if str(text) != own),
        key=lambda text: -len(set(text) & set(own)),
    )
    return path, [own, *near[:2]]


def _search(
    model: Any,
    dataset: Path,
    run: Path,
    picture: Path,
    titles: list[str],
    output_dir: Path,
    progress: Any,
) -> dict[str, Any]:
    """Build an index over the validation split; search it in words and with the picture."""
    from bagformer_cli.data.catalogue.catalogue import open_catalogue
    from bagformer_cli.index.build import add_catalogue
    from bagformer_cli.index.encode import EncodeOptions, layout_of
    from bagformer_cli.index.engines import create_engine
    from bagformer_cli.index.results_page import Found, write_page
    from bagformer_cli.index.search import Index

    started = time.perf_counter()
    catalogue = open_catalogue(dataset, split="valid")
    options = EncodeOptions()
    layout = layout_of(model, options, catalogue.attributes, str((run / "best").resolve()))
    engine = create_engine(str(run / "index"), layout)
    added = add_catalogue(engine, model, catalogue, options, progress=progress)
    engine.optimize(progress)
    built = time.perf_counter() - started
    index = Index(engine, model)
    found = index.search_many(titles, k=6, thumbnails=True)
    alike = index.search(image=picture, k=6, thumbnails=True)
    narrow = index.search(titles[0], where=_colour_of(found[0]), k=6, thumbnails=True)
    pages = [Found(title, one.hits) for title, one in zip(titles, found, strict=True)]
    pages.append(Found(f'{titles[0]}  --where "{_colour_of(found[0])}"', narrow.hits))
    pages.append(Found(str(picture), alike.hits, picture.read_bytes()))
    page = output_dir / "search.html"
    write_page(page, pages)
    return {
        "index": str(run / "index"),
        "rows": added.rows,
        "page": str(page),
        "results": [
            {"query": one.query, "hits": [hit.to_json() for hit in one.hits]} for one in pages
        ],
        "plan": found[0].plan,
        "seconds": {"build": round(built, 3), **found[0].seconds},
    }


def _colour_of(found: Any) -> str:
    """A filter that fits the first result."""
    return f"colour = '{found.hits[0].attributes['colour']}'"


def _show(report: dict[str, Any], lengths: list[int], output_dir: Path) -> None:
    from bagformer_cli.cli.eval import show_evaluation
    from bagformer_cli.cli.score import show_scores
    from bagformer_cli.cli.search import show_results

    show_evaluation(report)
    show_scores(report["score"], lengths)
    first = report["search"]["results"][0]
    show_results({"results": [first], "output": report["search"]["page"]})
    console.say(tr("Done in {seconds} s.", seconds=f"{report['total_seconds']:.0f}"))
    title = report["score"]["titles"][0]
    steps = [
        (f'xmr score image.jpg "{title}"', tr("score the picture against your own titles")),
        (f'xmr search "{title}" --profile', tr("search the pictures by words")),
        ("xmr search --image image.jpg --output alike.html", tr("or by a picture")),
        ("xmr bags '2024新款红色碎花连衣裙女夏季显瘦'", tr("the bags of a title")),
        ("xmr eval --dataset demo", tr("the table above, again")),
        ("xmr train --interaction tokenwise", tr("another interaction on the same data")),
        ("xmr eval --dataset muge", tr("what to get for the real benchmark")),
    ]
    if output_dir != Path():
        steps.insert(0, (f"cd {output_dir}", tr("the commands below find the run from there")))
    console.next_steps(steps)
