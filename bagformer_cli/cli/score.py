"""``xmr score``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint
from bagformer_cli.cli.views import show_bag_legend, show_bags
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.models.score_explanation import ScorePart

app = App()


@app.command(
    help=tr(
        "Score an image against titles in both directions, and show the titles' bags.\n\n"
        "text → image sums the best cosine in the image over the title's bags. image → text sums "
        "the best cosine among the bags over the image's patches. Compare titles by the mean, "
        "which does not grow with the title's length.\n\n"
        "--explain names the patch that each bag fits best. Patches attend to each other in the "
        "encoder, so the best patch need not lie on the object itself.\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' '蓝色牛仔裤'\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' --explain"
    )
)
def score(
    image: Annotated[Path, typer.Argument(help=tr("An image file."))],
    titles: Annotated[list[str], typer.Argument(help=tr("One or more titles."))],
    checkpoint: Checkpoint = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help=tr(
                "Show each bag's part of the score, and the patch of the image that it fits best."
            ),
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, score, print."""
    from bagformer_cli.data.images import decode

    decoded = decode(image)  # first, so that a wrong path is reported before torch is imported
    from bagformer_cli.api import load
    from bagformer_cli.models.checkpoint import find_checkpoint

    place = find_checkpoint(checkpoint)
    retriever = load(place)
    for title in titles:
        if ignored := retriever.ignored_end(title):
            console.warn(
                tr(
                    "The title is longer than the model's {n} tokens; its last {k} characters are "
                    "ignored.",
                    n=retriever.model.titles.max_tokens,
                    k=len(ignored),
                ),
                where=title if len(title) <= 40 else f"{title[:40]}…",
            )
    report: dict[str, Any] = {"image": str(image), "titles": titles}
    if explain:
        found = retriever.explain(decoded, titles)
        lengths = [len(one.parts) for one in found]
        report["text_to_image"] = [one.t2i for one in found]
        report["image_to_text"] = [one.i2t for one in found]
    else:
        vectors = retriever.encode_texts(titles)
        scores = retriever.score(retriever.encode_images([decoded]), vectors)
        lengths = vectors.lengths.tolist()
        report["text_to_image"] = scores.t2i[:, 0].tolist()
        report["image_to_text"] = scores.i2t[0].tolist()
    report["bags"] = [retriever.bags(title) for title in titles]
    if explain:
        report["explained"] = [[_part_to_json(part) for part in one.parts] for one in found]
    report["checkpoint"] = str(place)
    console.result(report, lambda: show_scores(report, lengths))


def _part_to_json(part: ScorePart) -> dict[str, Any]:
    """Describe a part of a title and its best patch; ``patch`` is null for the whole image."""
    cell = part.cell
    patch = None if cell is None else {**asdict(cell), "x": cell.x, "y": cell.y}
    return {"text": part.text, "score": part.score, "share": part.share, "patch": patch}


def show_scores(report: dict[str, Any], lengths: list[int]) -> None:
    """Print scores as a table, then each title's bags."""
    rows = [
        [title, t2i, t2i / max(1, length), i2t]
        for title, t2i, i2t, length in zip(
            report["titles"],
            report["text_to_image"],
            report["image_to_text"],
            lengths,
            strict=True,
        )
    ]
    console.table(
        [tr("title"), tr("text → image"), tr("mean of its vectors"), tr("image → text")],
        rows,
        title=f"{report['image']}  ({report['checkpoint']})",
        best=[2] if len(rows) > 1 else [],
    )
    if "explained" in report:
        for title, parts in zip(report["titles"], report["explained"], strict=True):
            _show_parts(title, parts)
        return
    for bags in report["bags"]:
        show_bags(bags)
    show_bag_legend()


def _show_parts(title: str, parts: list[dict[str, Any]]) -> None:
    """Print the parts of a title's score."""
    console.say()
    console.table(
        [tr("bag"), tr("part of the score"), tr("share, %"), tr("best patch")],
        [
            [
                tr("whole title") if part["text"] is None else part["text"],
                part["score"],
                100 * part["share"],
                _where(part["patch"]),
            ]
            for part in parts
        ],
        title=title,
    )


def _where(patch: dict[str, Any] | None) -> str:
    if patch is None:
        return tr("whole image")
    return tr(
        "row {row} of {rows}, column {column} of {columns}: {x} % from the left, {y} % from the "
        "top",
        **{**patch, "x": f"{patch['x']:.0f}", "y": f"{patch['y']:.0f}"},
    )
