"""``xmr push``: a model folder to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

app = App()


@app.command(
    help=tr(
        "Upload a model folder with its model card to the Hugging Face hub.\n\n"
        "    xmr push runs/demo/best OWNER/NAME\n\n"
        "Log in first with `hf auth login`. The name then works like a folder: "
        "--checkpoint OWNER/NAME. config.yaml and the model card name the dataset by its local "
        "path; look at them before you publish."
    )
)
def push(
    folder: Annotated[
        Path, typer.Argument(help=tr("Model folder, run folder, or a folder of xmr export."))
    ],
    name: Annotated[str, typer.Argument(help=tr("Name on the hub: OWNER/NAME."))],
    private: Annotated[
        bool, typer.Option("--private", help=tr("Make a new model private."))
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check, upload, print the address."""
    from bagformer_cli.hub import is_hub_name, upload
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.opening import require_plain_folder
    from bagformer_cli.runtime.folder import is_exported, read_manifest

    if not is_hub_name(name) or "/" not in name:
        raise InputError(
            tr("This cannot be the name of a model on the hub."), found=name, expected="OWNER/NAME"
        )
    place = folder
    if is_exported(folder):
        read_manifest(folder)
    else:
        from bagformer_cli.models.checkpoint import check_model_folder

        place = find_checkpoint(folder)
        check_model_folder(place)
    require_plain_folder(place)  # the hub's client follows links, wherever they lead
    address = upload(place, name, private=private)
    report = {"folder": str(place), "name": name, "address": address}
    labels = {"folder": tr("model folder"), "name": tr("name"), "address": tr("address")}
    console.result(report, lambda: console.facts({labels[key]: report[key] for key in report}))
