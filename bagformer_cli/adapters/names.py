"""Open the model that a value of ``--model`` names.

::

    hf:NAME          a dual encoder of transformers: a folder, or a name on the hub
    st:NAME          a model of sentence-transformers: the same
    open_clip:NAME   a folder, NAME/WEIGHTS of open_clip, or hf-hub:OWNER/NAME
    FOLDER           any of these by the files in the folder, or a model folder of this project
"""

from __future__ import annotations

from pathlib import Path

from bagformer_cli.adapters.open_clip_model import OpenClipModel
from bagformer_cli.adapters.protocol import OtherModel
from bagformer_cli.adapters.sentence import SentenceModel
from bagformer_cli.adapters.transformers_dual import TransformersDual
from bagformer_cli.errors import CheckpointError, InputError, PathError, listed
from bagformer_cli.hub import is_hub_name, snapshot
from bagformer_cli.messages import tr

PREFIXES = ("hf", "st", "open_clip")
_SIGNS = {"modules.json": "st", "open_clip_config.json": "open_clip", "config.json": "hf"}
"""A file that only a folder of this library has; ``config.json`` comes last: others have it too."""

_OWN = ("config.yaml", "best", "last")
"""Files and folders of a model folder or run folder of this project."""


def library_of(spec: str) -> tuple[str, str] | None:
    """Split a value of ``--model`` into the library's prefix and the name or folder.

    Returns:
        None if the value names a model folder or run folder of this project.

    Raises:
        InputError: It has no prefix and is no folder, or a folder of no known library.
    """
    prefix, colon, name = spec.partition(":")
    if colon and prefix in PREFIXES:
        if not name:
            raise InputError(
                tr("The name of the model is missing."),
                where="--model",
                found=spec,
                expected=tr("for example {example}", example=f"{prefix}:OWNER/NAME"),
            )
        return prefix, name
    folder = Path(spec)
    if not folder.is_dir():
        if is_hub_name(spec):
            raise InputError(
                tr("There is no such folder, and the name does not say of which library it is."),
                where="--model",
                found=spec,
                expected=" ".join(f"{one}:{spec}" for one in PREFIXES),
            )
        raise PathError(
            tr("There is no such model folder."), spec, "missing", "hf:NAME, st:NAME, open_clip:…"
        )
    for file, library in _SIGNS.items():
        # A model that xmr exported may keep a config.yaml next to the library's files.
        if file == "config.json" and any((folder / one).exists() for one in _OWN):
            return None
        if (folder / file).is_file():
            return library, spec
    raise CheckpointError(
        tr("This folder holds no model that xmr knows."),
        where=folder,
        expected=listed(["config.yaml", *_SIGNS]),
    )


def open_other(library: str, name: str, device: str) -> OtherModel:
    """Load a model of another library.

    Args:
        library: One of :data:`PREFIXES`.
        name: A folder, or a name of the library or the hub.
        device: Where it runs.

    Raises:
        CheckpointError: It cannot be loaded; the error says why.
        MissingDependencyError: The library is not installed.
    """
    spec = f"{library}:{name}"
    if library == "open_clip":
        from_hub = name.removeprefix("hf-hub:")
        if from_hub != name:
            name = str(snapshot(from_hub, "--model"))
        return OpenClipModel(name, spec, device)
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_name(name):
            raise PathError(tr("There is no such model folder."), name)
        folder = snapshot(name, "--model")
    return (TransformersDual if library == "hf" else SentenceModel)(folder, spec, device)
