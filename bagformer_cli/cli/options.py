"""Options that several commands share, and functions that parse their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bagformer_cli.errors import InputError, listed
from bagformer_cli.messages import tr


def _known_encoding(name: str) -> str:
    """Check the name of a text encoding (a callback of Typer).

    Raises:
        InputError: Python knows no encoding of this name.
    """
    try:
        "a".encode(name).decode(name)  # no codec of bytes ("hex"), none that refuses ("undefined")
    except (LookupError, ValueError):  # a UnicodeError is a ValueError
        raise InputError(
            tr("There is no text encoding of this name."),
            where="--encoding",
            found=name,
            expected="utf-8, gb18030, utf-16, …",
        ) from None
    return name


MAX_SEED = 2**63 - 1  # of a random seed, as in config/rules.py

Dataset = Annotated[
    str, typer.Option(help=tr("Dataset: a folder of MUGE files, or the names demo or muge."))
]
TrainedDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help=tr(
            "Dataset: a folder of MUGE files, or the names demo or muge. Default: the dataset that "
            "the model was trained on."
        ),
        show_default=False,
    ),
]
DatasetArgument = Annotated[
    str, typer.Argument(help=tr("Dataset: a folder of MUGE files, or the names demo or muge."))
]
DatasetToTrainOn = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help=tr("Dataset: a folder of MUGE files, or the names demo or muge. Default: demo."),
    ),
]
TrainingMode = Annotated[
    str | None,
    typer.Option("--mode", help=tr("Training mode; without --config, it names the config.")),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar=tr("KEY=VALUE"),
        help=tr("Change one setting, for example training.max_steps=20."),
    ),
]
Split = Literal["valid", "test", "train"]
EvaluatedSplit = Annotated[Split, typer.Option(help=tr("Split to evaluate."))]
Lexicons = Annotated[
    list[str] | None,
    typer.Option(
        "--lexicon",
        help=tr(
            "Dictionary used in addition to the built-in ones; may be repeated. Formats: typed "
            "TSV, jieba, BagFormer, marked titles."
        ),
    ),
]
Builtin = Annotated[
    bool, typer.Option("--builtin/--no-builtin", help=tr("Use the built-in dictionaries."))
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help=tr("Model folder or run folder. Default: the newest run under runs/.")),
]
Runtime = Annotated[
    Literal["torch", "onnx"],
    typer.Option(
        help=tr(
            "onnx: run the model that `xmr export onnx` wrote, without torch's start-up time. "
            "--checkpoint may also name its folder."
        )
    ),
]
SplitName = Annotated[
    str | None,
    typer.Option(help=tr("Split of a MUGE dataset. Default: valid.")),
]
Root = Annotated[
    Path | None,
    typer.Option(
        help=tr(
            "Folder that relative image paths start from and that all images must be inside. "
            "Default: the folder of the table, and images may be anywhere."
        )
    ),
]
Downloads = Annotated[
    Literal["public", "any", "never"],
    typer.Option(
        "--download",
        help=tr(
            "Which image addresses (http, https) of a table are downloaded: public ones, any (also "
            "those of this machine and its network), or never."
        ),
    ),
]
Encoding = Annotated[
    str,
    typer.Option(
        help=tr("Text encoding of the table. Chinese Excel usually writes gb18030."),
        callback=_known_encoding,
    ),
]
TITLES = tr(
    "A file with one title per line, or a CSV, TSV, JSONL or Excel table with a column of titles; "
    "- reads lines from standard input."
)
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help=tr(
            "Column of a table that is not recognised by its heading, for example image=主图; may "
            "be repeated. Names: id, image, title; for xmr data import also image_id, query_id, "
            "split."
        ),
        show_default=False,
    ),
]
Numbers = Annotated[
    list[str] | None,
    typer.Option(
        "--number",
        help=tr(
            "Column of a table to read as numbers: cells with anything else, such as 面议, stay "
            "empty and are counted; may be repeated. Default: such a column is text."
        ),
        show_default=False,
    ),
]
SheetName = Annotated[
    str | None,
    typer.Option(
        "--sheet",
        help=tr("Sheet of an .xlsx workbook: its name, or its number from 1. Default: the first."),
        show_default=False,
    ),
]
VectorDtype = Annotated[
    Literal["int8", "float16", "float32", "residual4"],
    typer.Option(
        help=tr(
            "Type of the stored vectors. residual4 (4 bits per dimension) is the smallest and "
            "slowest."
        )
    ),
]
OneVector = Annotated[
    Literal["cls", "mean"] | None,
    typer.Option(
        help=tr(
            "The single vector of an item for single-vector search. Default: cls if it was "
            "trained, else mean."
        ),
        show_default=False,
    ),
]
Keep = Annotated[
    int | None,
    typer.Option(
        min=1, help=tr("Truncation: keep the first N vectors of an image."), show_default=False
    ),
]
Prune = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help=tr(
            "Pruning: keep this share of an image's vectors, those most similar to its class token."
        ),
        show_default=False,
    ),
]
Pool = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=tr(
            "Token pooling: cluster an image's vectors (Ward) and merge N on average into one. "
            "Larger values take less space and are less exact."
        ),
        show_default=False,
    ),
]
Thumbnail = Annotated[
    int, typer.Option(min=0, help=tr("Longer side of stored thumbnails in pixels; 0: store none."))
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help=tr("Stop at the first broken product instead of skipping it.")),
]
Batch = Annotated[
    int,
    typer.Option(
        min=1, help=tr("Products per forward pass of the model. Larger values use more memory.")
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help=tr("Device of the model: cpu, cuda, … Default: a GPU if there is one."),
        show_default=False,
    ),
]
SearchedIndex = Annotated[
    str | None,
    typer.Option(
        help=tr(
            "A folder, s3://bucket/path, or qdrant://host:6333/collection. Default: index/, "
            "or the index of the newest run."
        ),
        show_default=False,
    ),
]
IndexModel = Annotated[
    Path | None,
    typer.Option(
        help=tr("Model folder. Default: the model that the index was built with."),
        show_default=False,
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help=tr("Open the model that the index names, also outside your own folders."),
    ),
]
RunBy = Annotated[
    Literal["local", "ray"],
    typer.Option(help=tr("Run on processes of this machine, or on Ray.")),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help=tr("Address of a running Ray cluster. Default: start one on this machine."),
        show_default=False,
    ),
]


def chosen_lexicons(builtin: bool, lexicons: list[str] | None) -> list[str]:
    """Combine the values of ``--builtin`` and ``--lexicon``.

    Raises:
        InputError: No dictionary is left.
    """
    chosen = [*(["builtin"] if builtin else []), *(lexicons or [])]
    if not chosen:
        raise InputError(
            tr("No dictionary was given."), hint=tr("Pass --lexicon, or leave out --no-builtin.")
        )
    return chosen


def chosen_columns(options: list[str] | None) -> dict[str, str]:
    """Parse the values of ``--column``: the role of a column to its heading.

    Raises:
        InputError: One is not ``NAME=HEADING``, or there is no such name.
    """
    from bagformer_cli.data.columns import ROLES

    chosen: dict[str, str] = {}
    for option in options or []:
        role, equals, heading = option.partition("=")
        if not equals or role.strip() not in ROLES or not heading.strip():
            raise InputError(
                tr("This is not a column and its heading."),
                found=f"--column {option}",
                expected=tr("NAME=HEADING with one of the names {names}", names=listed(ROLES)),
            )
        if chosen.setdefault(role.strip(), heading.strip()) != heading.strip():
            raise InputError(
                tr("--column names two headings for the same column."),
                found=f"{role.strip()}={chosen[role.strip()]}, {option}",
            )
    return chosen
