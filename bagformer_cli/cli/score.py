"""``xmr score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Score an image against titles, both ways, with the bags each score is made of.\n\n"
        "text to image is the sum over the title's bags of the best cosine in the image; image to "
        "text the sum over the image's patches of the best cosine among the bags. Compare titles "
        "by the mean, which does not grow with the title's length.\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' '蓝色牛仔裤'"
    )
)
def score(
    image: Annotated[Path, typer.Argument(help=tr("An image file."))],
    titles: Annotated[list[str], typer.Argument(help=tr("One title or more."))],
    checkpoint: Checkpoint = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, score, print."""
    from bagformer_cli.data.images import decode

    picture = decode(image)
    from bagformer_cli.api import load
    from bagformer_cli.models.checkpoint import find_checkpoint

    place = find_checkpoint(checkpoint)
    retriever = load(place)
    for title in titles:
        if unseen := retriever.rest(title):
            console.warn(
                tr(
                    "The title is longer than the model's {n} tokens; its last {k} characters do "
                    "not count.",
                    n=retriever.model.titles.max_tokens,
                    k=len(unseen),
                ),
                where=title if len(title) <= 40 else f"{title[:40]}…",
            )
    vectors = retriever.encode_texts(titles)
    scores = retriever.score(retriever.encode_images([picture]), vectors)
    report = {
        "image": str(image),
        "titles": titles,
        "text_to_image": scores.t2i[:, 0].tolist(),
        "image_to_text": scores.i2t[0].tolist(),
        "bags": [retriever.bags(title) for title in titles],
        "checkpoint": str(place),
    }
    console.result(report, lambda: show_scores(report, vectors.lengths.tolist()))


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
    for bags in report["bags"]:
        console.bags(bags)
    console.bags_legend()
