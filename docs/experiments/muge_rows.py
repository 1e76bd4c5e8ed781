"""Run one row of MUGE's protocol with commands of xmr: convert, train, measure, submit.

``muge_protocol.py`` imports it. Each command is a separate process. If a training runs out of
memory, only that process ends, and the GPU's memory is free again. The result of a command is a
JSON file in the row's folder; a command with a result is not run again.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagformer_cli.config import RunConfig, load_config
from bagformer_cli.data.muge import MugeFolder
from bagformer_cli.errors import InputError
from muge_tables import DICTIONARY, ROWS, VOCABULARY, Row
from trials import RESULT, Result, load_or_make, load_results


class CommandFailed(Exception):  # noqa: N818 - not an error of this program
    """A command of xmr failed and printed the reason.

    Attributes:
        code: Its exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass(frozen=True)
class Inputs:
    """The inputs that all rows have in common.

    Attributes:
        data: The dataset's folder.
        weights: The folder of the published weights.
        out: The folder of models, runs and results.
        settings: ``--set`` items of every training.
        steps: Training steps that an estimate measures.
    """

    data: Path
    weights: Path
    out: Path
    settings: tuple[str, ...] = ()
    steps: int = 20


def weights_of(row: Row, folder: Path) -> Path | None:
    """Return the first of a row's weights that exists in the folder, else None."""
    return next((folder / name for name in row.weights if (folder / name).exists()), None)


def run_xmr(arguments: Sequence[object]) -> Result:
    """Run a command of xmr and return the JSON that it prints; its progress goes to the terminal.

    Raises:
        CommandFailed: It failed.
    """
    words = [str(argument) for argument in arguments]
    print(f"$ xmr {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "bagformer_cli.cli.main", *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ) as process:
        while True:
            try:
                printed = process.communicate()[0]
                break
            except KeyboardInterrupt:
                continue  # the command got Ctrl-C, too; wait until it has saved and ended
    if process.returncode:
        raise CommandFailed(abs(process.returncode))
    found: Result = json.loads(printed)
    return found


class RowRunner:
    """Runs rows and reads their results.

    Args:
        inputs: The inputs that all rows have in common.
    """

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs

    def folder(self, row: Row) -> Path:
        """Return the folder of a row."""
        return self.inputs.out / "rows" / row.name.replace("/", "-")

    def results(self) -> dict[str, Result]:
        """Read the results of all finished rows: row name to result."""
        found = {name: load_results([self.folder(row) / RESULT]) for name, row in ROWS.items()}
        return {name: results[0] for name, results in found.items() if results}

    def begin(self, row: Row) -> Path:
        """Make the folder of a row and write its settings there.

        Raises:
            InputError: The row was begun with other settings.
        """
        folder = self.folder(row)
        folder.mkdir(parents=True, exist_ok=True)
        settings = [*row.settings, *self.inputs.settings] if row.config else []
        begun = load_or_make(folder / "settings.json", lambda: {"settings": settings})
        if begun["settings"] != settings:
            raise InputError(
                "This row was begun with other settings.",
                where=folder,
                found=" ".join(begun["settings"]) or "none",
                expected=" ".join(settings) or "none",
                hint="Name another folder with --out, or delete this one.",
            )
        return folder

    def run(self, row: Row) -> Result:
        """Run one row, or read its result if it is finished.

        Raises:
            CommandFailed: A command failed.
            InputError: The row was begun with other settings.
        """
        folder = self.begin(row)
        return load_or_make(folder / RESULT, lambda: self._run(row, folder))

    def _run(self, row: Row, folder: Path) -> Result:
        model = self.convert(row)
        result: Result = {"row": row.name}
        if row.config is not None:
            run = folder / "run"
            trained = load_or_make(folder / "train.json", lambda: self._train(row, run))
            result |= {"training": trained}
            model = run / "best"
        evaluate = ["eval", "--dataset", self.inputs.data, "--checkpoint", model, "--rerank", 0]
        measured = load_or_make(
            folder / "valid.json", lambda: run_xmr([*evaluate, "--split", "valid"])
        )
        result |= {"figures": measured["stages"]["recall"]["text_to_image"]}
        result |= {"queries": measured["n_queries"], "images": measured["n_items"]}
        if "test" in MugeFolder(self.inputs.data).splits:
            submission = folder / "test_predictions.jsonl"
            submit = [*evaluate, "--split", "test", "--submission", submission]
            load_or_make(folder / "test.json", lambda: run_xmr(submit))
            result |= {"submission": str(submission)}
        return result

    def convert(self, row: Row) -> Path:
        """Convert the weights of a row to a model folder, unless it is there."""
        source = weights_of(row, self.inputs.weights)
        assert source is not None  # checked before the first row
        folder = self.inputs.out / "models" / source.stem
        if (folder / "config.yaml").is_file():
            return folder
        if row.is_bagformer:
            files = ["--vocab", self.inputs.weights / VOCABULARY]
            files += ["--lexicon", self.inputs.weights / DICTIONARY]
            run_xmr(["convert", "bagformer", source, folder, *files])
        else:
            files = ["--vocab", self.inputs.weights / VOCABULARY] if source.is_file() else []
            run_xmr(["convert", "chinese-clip", source, folder, *files])
        return folder

    def _train(self, row: Row, run: Path) -> Result:
        if (run / "config.yaml").is_file():
            return run_xmr(["train", "--resume", "--output-dir", run])
        return run_xmr(["train", *self._arguments(row), "--output-dir", run])

    def estimate(self, row: Row) -> Result:
        """Measure a few steps of a row's training on this machine.

        Raises:
            CommandFailed: A command failed.
        """
        self.convert(row)
        return run_xmr(["estimate", *self._arguments(row), "--steps", self.inputs.steps])

    def _arguments(self, row: Row) -> list[object]:
        """Return the dataset, the configuration and the settings of a training."""
        settings = [*self.start(row), *row.settings, *self.inputs.settings]
        last = {item.partition("=")[0]: item for item in settings}  # the last of a key counts
        arguments: list[object] = ["--dataset", self.inputs.data, "--config", row.config]
        for item in last.values():
            arguments += ["--set", item]
        return arguments

    def start(self, row: Row) -> list[str]:
        """Return the settings that name a row's weights, and the sizes of these weights.

        The sizes are always given: ``xmr estimate`` reads no weights, and only published base
        models have the sizes of the configuration.
        """
        model, source = self.convert(row), weights_of(row, self.inputs.weights)
        settings = size_settings(load_config(model / "config.yaml", stored=True))
        if row.is_bagformer:
            dictionary = [str(self.inputs.weights / DICTIONARY)]
            start: dict[str, Any] = {"training.checkpoint": str(model), "text.lexicons": dictionary}
        else:
            # Chinese-CLIP does not fold full-width letters.
            start = {"text.chinese_clip": str(source), "image.chinese_clip": str(source),
                     "text.fold_width": False}  # fmt: skip
        return [*settings, *as_items({"text.tokenizer": str(model), **start})]


def size_settings(config: RunConfig) -> list[str]:
    """Return ``--set`` items with the sizes of the towers of a converted model."""
    sizes: dict[str, Any] = {
        f"text.{name}": getattr(config.text, name)
        for name in ("layers", "width", "heads", "feed_forward", "options")
    }
    sizes |= {
        f"image.{name}": getattr(config.image, name)
        for name in ("size", "backbone", "options", "attention_pool")
    }
    sizes |= {
        f"model.{name}": getattr(config.model, name) for name in ("embed_dim", "projection_bias")
    }
    if config.model.cross is not None:
        sizes["model.cross.layers"] = config.model.cross.layers
    return as_items(sizes)


def as_items(settings: dict[str, Any]) -> list[str]:
    """Write settings as ``--set`` items, with values in JSON where they are not plain words.

    >>> as_items({"image.size": 224, "image.options": {"depth": 2}, "text.tokenizer": "a"})
    ['image.size=224', 'image.options={"depth": 2}', 'text.tokenizer=a']
    """
    return [
        f"{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    ]
