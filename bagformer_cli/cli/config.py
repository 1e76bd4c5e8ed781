"""``xmr config``: look up settings, show and copy built-in configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Overrides
from bagformer_cli.errors import InputError, nearest
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.config import RunConfig
    from bagformer_cli.config.settings import Setting

app = App(tr("Look up settings; show and copy built-in configurations."))

ConfigName = Annotated[
    str, typer.Argument(metavar=tr("NAME"), help=tr("Built-in config or config file."))
]
ModeName = Annotated[
    str | None,
    typer.Option("--mode", help=tr("Built-in mode or YAML file, applied on top of it.")),
]


@app.command(
    "list",
    help=tr(
        "List the built-in configurations, the modes, and every setting with its type, range, "
        "default and meaning.\n\n"
        "    xmr config list\n\n"
        "    xmr config list training\n\n"
        "    xmr config list learning_rate"
    ),
)
def list_settings(
    name: Annotated[
        str | None,
        typer.Argument(help=tr("Only settings whose name contains this text.")),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Collect, print."""
    from bagformer_cli.config.builtin import CONFIGS, MODES
    from bagformer_cli.config.settings import settings

    every = list(settings())
    chosen = [one for one in every if name is None or name in one.name]
    if not chosen:
        near = nearest(name or "", [one.name for one in every])
        raise InputError(
            tr("There is no setting of that name."),
            found=name,
            hint=tr("Did you mean {name}?", name=near) if near else None,
        )
    found = {"configs": CONFIGS, "modes": MODES, "settings": chosen}

    def show() -> None:
        if name is None:
            _show_names(tr("Built-in configurations (--config)"), CONFIGS)
            _show_names(tr("Modes (--mode)"), MODES)
        _show_settings(chosen)

    console.result(found, show)


@app.command(
    help=tr(
        "Print a whole configuration as YAML: the file, what it extends, the mode and --set "
        "together.\n\n"
        "    xmr config show muge_bagformer\n\n"
        "    xmr config show inflate_shrink --mode fast --set training.batch_size=64"
    )
)
def show(
    name: ConfigName,
    mode: ModeName = None,
    overrides: Overrides = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Load, print."""
    import sys

    from bagformer_cli.config import load_config, yaml

    config = load_config(name, overrides or [], mode)
    values = config.model_dump(mode="json")
    console.result(values, lambda: yaml().dump(values, sys.stdout))


@app.command(
    help=tr(
        "Write a whole configuration to a file, with the meaning of each setting as a comment. "
        "Edit it and train with --config FILE.\n\n"
        "    xmr config copy muge_bagformer mine.yaml"
    )
)
def copy(
    name: ConfigName,
    file: Annotated[Path, typer.Argument(metavar=tr("FILE"), help=tr("The file to write."))],
    mode: ModeName = None,
    overrides: Overrides = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Load, write."""
    from bagformer_cli.config import load_config
    from bagformer_cli.config.commented import commented_yaml
    from bagformer_cli.files import write_text

    config: RunConfig = load_config(name, overrides or [], mode)
    if file.exists():
        raise InputError(
            tr("A file or folder of this name already exists."),
            where=file,
            hint=tr("Choose another name or remove it first."),
        )
    write_text(file, commented_yaml(config, name))
    console.result({"file": str(file)}, lambda: console.facts({tr("file"): file}))
    if not console.wants_json():
        console.next_steps([(f"xmr train --config {file}", tr("train with it"))])


def _show_names(heading: str, about: dict[str, str]) -> None:
    console.heading(heading)
    console.facts(about)


def _show_settings(found: list[Setting]) -> None:
    """Print each setting with its default and type, its meaning below."""
    for one in found:
        if one.section and "." not in one.name:
            console.heading(f"{one.name}   {one.meaning}")
            continue
        default = "" if one.section and not one.default else f" = {one.default}"
        console.styled([(one.name, "bold"), (default, ""), (f"   {one.kind}", "dim")])
        if one.meaning:
            console.facts({"   ": one.meaning})
