"""Find the folder that ``--dataset`` names, and bring its store up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bagformer_cli.config import load_config
from bagformer_cli.data.attributes import FILE_NAME, read_header
from bagformer_cli.data.muge import MugeFolder, naming_of, wanted_files
from bagformer_cli.data.store.preprocess import preprocess
from bagformer_cli.data.store.store import Store
from bagformer_cli.data.store.tokens import Encoder
from bagformer_cli.data.workers import Workers
from bagformer_cli.errors import InputError, PathError, nearest
from bagformer_cli.machine import usable_cores
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress

DEMO = Path("data/demo")
MUGE = Path("data/muge")
BUILT_IN = {"demo": DEMO, "muge": MUGE}


def resolve(dataset: str | Path, progress: Progress = SILENT) -> MugeFolder:
    """Find a dataset by its folder or by a built-in name.

    Args:
        dataset: A folder in MUGE form. If no folder has this name: ``demo`` is ``data/demo/``
            in the current folder, drawn if it does not exist, and ``muge`` is ``data/muge/``.
        progress: Receives the number of images drawn, and which of two folders was taken.

    Raises:
        InputError: The dataset does not exist; for ``muge`` the error says where to get it.
    """
    path = Path(dataset)
    if path.is_dir() and (naming_of(path) is not None or str(dataset) not in BUILT_IN):
        other = BUILT_IN.get(str(dataset))
        if other is not None and naming_of(other) is not None:
            progress.warn(
                tr(
                    "There are two datasets of the name {name}: {folder} was taken. For the other "
                    "one: --dataset {other}",
                    name=dataset,
                    folder=f"{path}{os.sep}",
                    other=other,
                )
            )
        return MugeFolder(path)
    if str(dataset) == "demo":
        from bagformer_cli.demo import draw_once

        return MugeFolder(draw_once(DEMO, progress))
    if str(dataset) == "muge":
        if not MUGE.is_dir() or naming_of(MUGE) is None:
            raise muge_missing()
        return MugeFolder(MUGE)
    expected = tr("a folder in MUGE form, or demo, or muge")
    if path.is_file():
        raise InputError(
            tr("This is a file; a dataset is a folder."),
            where=dataset,
            expected=expected,
            hint=tr(
                "`{command}` makes one.", command=f"xmr data import {dataset} --out {tr('FOLDER')}"
            ),
        )
    error = PathError(tr("There is no dataset of that name."), dataset, "missing", expected)
    near = nearest(str(dataset), ["demo", "muge"])
    if near:
        error.hint = tr("Did you mean {name}?", name=near)
    raise error


def draw_products(out: Path, images: int, size: int, progress: Progress = SILENT) -> MugeFolder:
    """Draw a dataset of products into a new folder; see ``demo.write_demo``."""
    from bagformer_cli.demo import write_demo

    write_demo(out, images=images, size=size, progress=progress)
    return MugeFolder(out)


def folder_of(dataset: str) -> Path:
    """Return the folder of a value of ``--dataset``, whether or not it exists.

    >>> str(folder_of("demo")), str(folder_of("data/shop"))
    ('data/demo', 'data/shop')
    """
    path = Path(dataset)
    return path if naming_of(path) is not None else BUILT_IN.get(dataset, path)


def own_dataset(folder: Path) -> str:
    """Find the dataset that a run of this user was trained on; see :func:`find_moved`.

    Args:
        folder: A run folder or model folder; its ``config.yaml`` names the dataset.

    Raises:
        InputError: The run does not lie where it was started, or there is no run around the model:
            a configuration from elsewhere may name any folder. Or the dataset has been moved or
            deleted, or ``config.yaml`` is missing or broken.
    """
    from bagformer_cli.training.run_record import is_where_it_was_started  # imports torch

    option = f"--dataset {tr('FOLDER')}"
    # The run's own settings come first: best/ may be older than a resume with a moved dataset.
    places = (folder.resolve().parent, folder.resolve())
    run = next(filter(is_where_it_was_started, places), None)
    recorded = recorded_dataset(run or folder)
    if run is None:
        raise InputError(
            tr(
                "This model was not trained in this place, so the dataset in its configuration "
                "is not used unasked."
            ),
            where=folder,
            found=recorded,
            hint=tr("Name the dataset: {option}", option=option),
        )
    return find_moved(recorded, folder, option)


def recorded_dataset(folder: Path) -> str:
    """Return the dataset that a run or model folder names, which may be a stranger's.

    Raises:
        InputError: ``config.yaml`` is missing or broken.
    """
    return load_config(folder / "config.yaml").data.dataset


def find_moved(recorded: str, folder: Path, option: str) -> str:
    """Find the dataset that a run names, from any current folder.

    A relative path starts from the folder in which the run was started, as ``run.json`` says. If
    the project has been moved since, it starts from one of the folders that contain the run. The
    current folder counts only for a model folder that was copied without its run: a folder of the
    same name can be another dataset.

    Args:
        recorded: ``data.dataset`` of the run's configuration.
        folder: The run folder or a model folder in it.
        option: The option that names another folder, for the message.

    Returns:
        A value of ``--dataset``.

    Raises:
        InputError: The dataset has been moved or deleted.
    """
    from bagformer_cli.training.run_record import started_in  # imports torch

    path = folder_of(recorded)
    if path.is_absolute():
        places = [Path()]
    else:
        run = folder.resolve()
        start = started_in(run) or started_in(run.parent)
        places = [*filter(None, [start]), *run.parents, *([] if start else [Path.cwd()])]
    for place in places:
        if naming_of(place / path) is not None:
            is_here = path.is_absolute() or place == Path.cwd()
            return recorded if is_here else str(place / path)
    if recorded in BUILT_IN:
        return recorded
    raise InputError(
        tr("The dataset of this run is not there."),
        where=folder,
        found=recorded,
        hint=tr("If it has been moved, name its folder: {option}", option=option),
    )


def is_drawn(folder: Path) -> bool:
    """Say whether a dataset folder holds drawn images, made by ``xmr demo`` or ``data demo``."""
    header = folder / FILE_NAME
    try:
        return header.is_file() and "seed" in read_header(header)
    except InputError:
        return False


def is_drawn_image(image: Path) -> bool:
    """Say whether a file is the image that ``xmr demo`` takes from its drawn dataset."""
    from bagformer_cli.demo import DRAWN_IMAGE

    return image.name == DRAWN_IMAGE and is_drawn(image.absolute().parent / DEMO)


def recall_before_training(model: Path, dataset: str, split: str) -> dict[str, Any] | None:
    """Return the recall that a model's run had before its first step, on the same split.

    Args:
        model: The model folder.
        dataset: The value of ``--dataset`` that the model is evaluated on.
        split: The split that it is evaluated on.

    Returns:
        Direction to metrics, in percent. None: the model is in no run folder, or its run measured
        another dataset or split.
    """
    from bagformer_cli.models.runs import stages_at_start

    stages = stages_at_start(model.resolve().parent)
    if split != "valid" or stages is None or "recall" not in stages:
        return None
    try:
        own = own_dataset(model)
    except InputError:  # moved or deleted
        return None
    if folder_of(own).resolve() != folder_of(dataset).resolve():
        return None
    return dict(stages["recall"])


def saw_drawn_pictures_only(model: Path) -> bool:
    """Say whether a model folder was trained on drawn images."""
    try:
        if recorded_dataset(model) in ("demo", str(DEMO)):
            return True
        return is_drawn(folder_of(own_dataset(model)))
    except InputError:  # the dataset is gone, or not this user's: nothing is known
        return False


def muge_missing() -> InputError:
    """Make the error for ``--dataset muge`` without MUGE's files."""
    return InputError(
        tr("MUGE's data is not here."),
        where=f"{MUGE}{os.sep}",
        expected=tr(
            "{files} (and the same for train and test if you need them)",
            files=wanted_files("valid"),
        ),
        hint=tr(
            "MUGE may not be redistributed, so this program does not include it. Download it from "
            "Tianchi, dataset 107332 (https://tianchi.aliyun.com/dataset/107332; a free account), "
            "and put the files into {folder} in the current folder.",
            folder=f"{MUGE}{os.sep}",
        ),
    )


def ensure_store(
    folder: MugeFolder | str | Path,
    encoder: Encoder | None,
    *,
    text_only: bool = False,
    splits: Sequence[str] | None = None,
    workers: Workers | None = None,
    progress: Progress = SILENT,
) -> Store:
    """Open the dataset's store; make it or bring it up to date if needed.

    Args:
        folder: The dataset.
        encoder: Makes tokens and bags; None: no tokens are needed.
        text_only: Leave out the images.
        splits: The splits that are needed; None: all complete ones.
        workers: Number of processes, or a Ray cluster; None: one process per usable core.
        progress: Receives what is done.
    """
    if not isinstance(folder, MugeFolder):
        folder = MugeFolder(folder)
    return preprocess(
        folder,
        encoder=encoder,
        text_only=text_only,
        splits=splits,
        workers=workers or usable_cores(),
        progress=progress,
    )
