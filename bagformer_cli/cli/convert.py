"""``xmr convert``: published weights to model folders."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App(tr("Convert published weights to model folders."), group=True)


class Interaction(StrEnum):
    """The vectors that are compared."""

    cls = "cls"
    tokenwise = "tokenwise"
    bagwise = "bagwise"


class BagFusion(StrEnum):
    """Bags before or after the text encoder."""

    early = "early"
    late = "late"


@app.command(
    help=tr(
        "Convert a published BagFormer checkpoint to a model folder that reproduces its scores.\n\n"
        "The scores include the habits of the original code (compat: bagformer). The momentum copy "
        "and the queues are left out. No code in the checkpoint is run.\n\n"
        "    xmr convert bagformer checkpoint.pth models/bagformer --vocab vocab.txt "
        "--lexicon entity_dict"
    )
)
def bagformer(
    checkpoint: Annotated[Path, typer.Argument(help=tr("The .pth file."))],
    out: Annotated[Path, typer.Argument(help=tr("The model folder to write."))],
    vocab: Annotated[
        Path, typer.Option(help=tr("The WordPiece vocabulary (that of bert-base-chinese)."))
    ],
    lexicon: Annotated[Path, typer.Option(help=tr("The entity dictionary, one entry per line."))],
    interaction: Annotated[
        Interaction, typer.Option(help=tr("The vectors that are compared."))
    ] = Interaction.bagwise,
    bag_fusion: Annotated[
        BagFusion,
        typer.Option(
            help=tr(
                "Sum tokens to bags before (early) or after (late) the text encoder; must match "
                "the training."
            )
        ),
    ] = BagFusion.late,
    sep: Annotated[
        bool,
        typer.Option("--sep", help=tr("End titles with [SEP]; the original's training does not.")),
    ] = False,
    image_size: Annotated[
        int | None,
        typer.Option(min=1, help=tr("Pixels per side of an image. Default: the checkpoint's.")),
    ] = None,
    readme: Annotated[
        bool,
        typer.Option(
            "--readme",
            help=tr("Compare unprojected features, as the example in the original's README does."),
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, convert, print."""
    from bagformer_cli.original.convert import CheckpointSources, convert_bagformer

    model = convert_bagformer(
        checkpoint,
        out,
        CheckpointSources(vocab, lexicon, interaction.value, bag_fusion.value, sep),
        image_size=image_size,
        compat="bagformer-readme" if readme else "bagformer",
    )
    report = {
        "folder": str(out),
        "interaction": interaction.value,
        "bag_fusion": bag_fusion.value,
        "image_size": model.config.image.size,
        "max_tokens": model.config.text.max_tokens,
        "add_sep": sep,
        "numbers": sum(parameter.numel() for parameter in model.parameters()),
    }
    names = {
        "folder": tr("model folder"),
        "interaction": tr("interaction"),
        "bag_fusion": tr("bag fusion"),
        "image_size": tr("image size"),
        "max_tokens": tr("most tokens per title"),
        "add_sep": tr("titles end with [SEP]"),
        "numbers": tr("parameters"),
    }
    console.result(report, lambda: console.facts({names[key]: report[key] for key in report}))
