"""``xmr demo``: the whole way once, on drawn products, without any download."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Go the whole way once: draw 3,000 products with Chinese titles, preprocess, train a "
        "small bag-wise model, evaluate it with rerank, score a picture. Takes a few minutes on "
        "two cores; downloads nothing. Leaves data/demo, a run under runs/ and image.jpg."
    )
)
def demo(
    output_dir: Annotated[
        Path, typer.Option(help=tr("Where data/, runs/ and image.jpg go."))
    ] = Path(),
    seed: Annotated[int, typer.Option(help=tr("Sets everything random in training."))] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw, preprocess, train, evaluate, score."""
    started = time.perf_counter()
    from bagformer_cli.cli.eval import drawn_attributes
    from bagformer_cli.config import load_config
    from bagformer_cli.data.datasets import ensure_store, resolve

    settings = load_config("demo", [f"seed={seed}"])
    with console.progress() as progress:
        console.info(tr("1  Drawing products and writing them as MUGE files"))
        folder = resolve("demo", root=output_dir, progress=progress)
        console.info(tr("2  Titles to entity bags, images to a store"))
        from bagformer_cli.training.run import free_run_folder, new_model, start_run

        model = new_model(settings)
        store = ensure_store(folder, model.titles, progress=progress)
        run = free_run_folder(output_dir / "runs", "demo")
        console.info(tr("3  Training a bag-wise model in {run}", run=run))
        result = start_run(settings, store, run, model, template="demo", progress=progress)
        if result.interrupted:
            console.info(tr("Stopped. Go on with: xmr train --resume --output-dir {run}", run=run))
            raise typer.Exit(130)
        console.info(tr("4  Evaluating on combinations that training never showed"))
        from bagformer_cli.api import load
        from bagformer_cli.evaluation.evaluate import evaluate

        retriever = load(run / "best")
        valid = store.split("valid")
        found = evaluate(retriever.model, valid, settings.evaluation, progress=progress)
    picture, titles = _example(valid, found, output_dir / "image.jpg")
    vectors = retriever.encode_texts(titles)
    scores = retriever.score(retriever.encode_images([picture]), vectors)
    report: dict[str, Any] = {
        "dataset": "demo",
        "split": "valid",
        **found.to_json(),
        **drawn_attributes(folder.path, valid, found),
        "checkpoint": str(run / "best"),
        "score": {
            "image": str(picture),
            "titles": titles,
            "text_to_image": scores.t2i[:, 0].tolist(),
            "image_to_text": scores.i2t[0].tolist(),
            "bags": [retriever.bags(title) for title in titles],
            "checkpoint": str(run / "best"),
        },
        "total_seconds": round(time.perf_counter() - started, 1),
    }
    console.result(report, lambda: _show(report, vectors.lengths.tolist(), output_dir))


def _example(valid: Any, found: Any, path: Path) -> tuple[Path, list[str]]:
    """A picture to play with, and three titles: one of its own and two of its near misses."""
    from bagformer_cli.files import atomic_file

    query = 0
    image = int(valid.items[valid.item_offsets[query]])
    with atomic_file(path) as temporary:
        temporary.write_bytes(valid.image_bytes(image))
    own = str(valid.texts[query])
    near = sorted(
        (str(text) for text in valid.texts if str(text) != own),
        key=lambda text: -len(set(text) & set(own)),
    )
    return path, [own, *near[:2]]


def _show(report: dict[str, Any], lengths: list[int], output_dir: Path) -> None:
    from bagformer_cli.cli.eval import show_evaluation
    from bagformer_cli.cli.score import show_scores

    show_evaluation(report)
    show_scores(report["score"], lengths)
    console.say(tr("Done in {seconds} s.", seconds=f"{report['total_seconds']:.0f}"))
    title = report["score"]["titles"][0]
    steps = [
        (f'xmr score image.jpg "{title}"', tr("score the picture against your own titles")),
        ("xmr bags '2024新款红色碎花连衣裙女夏季显瘦'", tr("the bags of a title")),
        ("xmr eval --dataset demo", tr("the table above, again")),
        ("xmr train --interaction tokenwise", tr("another interaction on the same data")),
        ("xmr eval --dataset muge", tr("what to get for the real benchmark")),
    ]
    if output_dir != Path():
        steps.insert(0, (f"cd {output_dir}", tr("the commands below find the run from there")))
    console.next_steps(steps)
