"""Reproduce Chinese-CLIP's and BagFormer's tables on MUGE from raw files and published weights.

    python docs/experiments/muge_protocol.py --dry-run
    python docs/experiments/muge_protocol.py --data data/muge --weights weights --list
    python docs/experiments/muge_protocol.py --data data/muge --weights weights --out runs/muge

A row converts its weights, fine-tunes them if the published row was fine-tuned, measures recall on
the validation split and writes the submission of the test split. It runs commands of xmr and prints
them. A finished row is not repeated, and an interrupted training continues. Without --rows, rows
whose weights are missing are left out and named. --dry-run does the same with a small dataset and
generated weights, in minutes on a CPU. docs/muge.md lists the files to download.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from bagformer_cli.cli import console
from bagformer_cli.data.images import decode
from bagformer_cli.data.muge import MugeFolder, iter_images, iter_queries
from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.files import write_text
from muge_report import figures_table, hours_text, results_page, rows_list
from muge_rows import CommandFailed, Inputs, RowRunner, weights_of
from muge_sample import write_sample, write_weights
from muge_tables import DICTIONARY, PRETRAINED, PUBLISHED, ROWS, SPLITS, VOCABULARY, Counts, Row
from trials import Result, load_results

DRY_SETTINGS = (
    "training.batch_size=8",
    "training.micro_batch_size=4",
    "training.epochs=1",
    "training.warmup_steps=1",
    "data.workers=0",
)
INTERRUPTED = 130  # exit code of an interrupted command
DATA_HINT = (
    "MUGE's retrieval data is dataset 107332 of Tianchi (a free account). `xmr data import` "
    "converts the LMDB that Chinese-CLIP offers. docs/muge.md describes both."
)
WEIGHTS_HINT = (
    "The README of the repository OFA-Sys/Chinese-CLIP links Chinese-CLIP's weights, and that of "
    f"howard-hou/BagFormer links BagFormer's (save them as {PRETRAINED} and {PUBLISHED}) and has "
    f"its dictionary, vocab/{DICTIONARY}. {VOCABULARY} is that of bert-base-chinese."
)


# -------------------------------------------------------------------------------------------- rows


def choose_rows(patterns: str | None, weights: Path) -> list[Row]:
    """Return the rows that match the patterns, or without patterns all rows that have weights.

    Args:
        patterns: Names or patterns such as ``zero-shot/*``, separated by commas; None: all rows.
        weights: The folder of the weights.

    Raises:
        InputError: A pattern names no row, or a file of a row is missing.
    """
    if patterns is None:
        rows = [row for row in ROWS.values() if not missing_files(row, weights)]
        for row in ROWS.values():
            if row not in rows:
                needed = ", ".join(missing_files(row, weights))
                console.warn(f"{row.name} is left out: {needed} is missing.", weights)
        if rows:
            return rows
        raise InputError(
            "The folder of weights has the weights of no row.",
            where=weights,
            expected=" or ".join(next(iter(ROWS.values())).weights),
            hint=WEIGHTS_HINT,
        )
    chosen = []
    for pattern in patterns.split(","):
        found = [row for row in ROWS.values() if fnmatchcase(row.name, pattern.strip())]
        if not found:
            raise InputError(
                "There is no such row.",
                where="--rows",
                found=pattern.strip(),
                expected=", ".join(ROWS),
            )
        chosen += [row for row in found if row not in chosen]
    missing = [name for row in chosen for name in missing_files(row, weights)]
    if missing:
        raise InputError(
            "Weights are missing.",
            where=weights,
            expected=", ".join(dict.fromkeys(missing)),
            hint=WEIGHTS_HINT,
        )
    return chosen


def missing_files(row: Row, weights: Path) -> list[str]:
    """Name the files of a row that the folder of weights does not have."""
    source = weights_of(row, weights)
    missing = [] if source is not None else [" or ".join(row.weights)]
    if row.is_bagformer:
        wanted = [VOCABULARY, DICTIONARY]
    else:
        wanted = [VOCABULARY] if source is not None and source.is_file() else []
    return missing + [name for name in wanted if not (weights / name).is_file()]


# -------------------------------------------------------------------------------------------- data


def count_splits(folder: Path, splits: Sequence[str]) -> Result:
    """Count the records of the splits and decode the first image of each.

    Args:
        folder: The dataset.
        splits: The splits that must be complete; others are counted if they are.

    Returns:
        Split to its counts.

    Raises:
        InputError: A file is missing.
        DataError: A line is wrong, or an image cannot be decoded.
    """
    data = MugeFolder(folder)
    for split in splits:
        data.require(split)
    counts = {}
    for split in (name for name in SPLITS if name in data.splits):
        images = iter_images(data.images_path(split))
        first = next(images, None)
        if first is None:
            raise InputError("The images file is empty.", where=data.images_path(split))
        decode(first[1])
        queries = [len(query.item_ids) for query in iter_queries(data.queries_path(split))]
        counts[split] = asdict(Counts(1 + sum(1 for _ in images), len(queries), sum(queries)))
    return counts


def require_official(counts: Mapping[str, int], split: str, folder: Path) -> None:
    """Raise unless a split has the numbers of images, queries and pairs of the official one."""
    wrong = [
        (f"{counts[name]:,} {name}", f"{expected:,} {name}")
        for name, expected in asdict(SPLITS[split]).items()
        if expected is not None and counts[name] != expected
    ]
    if wrong:
        raise InputError(
            f"The split '{split}' is not MUGE's official one, or its download was cut off.",
            where=folder,
            found=", ".join(found for found, _ in wrong),
            expected=", ".join(expected for _, expected in wrong),
            hint="Download it again. --other-data measures on this split all the same: its "
            "figures cannot be compared with the published ones.",
        )


def needed_splits(rows: Sequence[Row]) -> list[str]:
    """Return the splits that rows need. The test split is optional: it gets a submission."""
    return ["train", "valid"] if any(row.config for row in rows) else ["valid"]


# -------------------------------------------------------------------------------------------- main


def run_rows(runner: RowRunner, rows: Sequence[Row], out: Path) -> list[str]:
    """Run rows one after another; write the table after each.

    Returns:
        Names of the rows whose commands failed.
    """
    for row in rows:
        runner.begin(row)  # refuse other settings before the first row, not after hours
    failed = []
    for number, row in enumerate(rows, 1):
        print(f"\n[{number}/{len(rows)}] {row.name}", flush=True)
        try:
            runner.run(row)
        except CommandFailed as failure:
            if failure.code == INTERRUPTED:
                raise
            console.warn(f"{row.name} failed and is left out. The next row starts.")
            failed.append(row.name)
        write_text(out / "table.md", "\n".join(results_page(runner.results())) + "\n")
    return failed


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with MUGE's files (default: data/muge)")
    parser.add_argument(
        "--weights", type=Path, help="folder with the published weights (default: weights)"
    )
    parser.add_argument("--out", type=Path, help="output folder (default: runs/muge)")
    parser.add_argument("--rows", help="names or patterns separated by commas (default: all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change one setting of every training, for example training.micro_batch_size=16",
    )  # fmt: skip
    todo = parser.add_mutually_exclusive_group()
    todo.add_argument("--list", action="store_true", help="print the rows and what they need")
    todo.add_argument(
        "--estimate", action="store_true",
        help="measure a few steps of each training on this machine, print its hours, and stop",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true",
        help="run everything on a small dataset with generated weights; with --data, on its "
        "first images",
    )  # fmt: skip
    parser.add_argument(
        "--other-data", action="store_true", help="accept splits that are not the official ones"
    )
    options = parser.parse_args(arguments)
    if options.dry_run and options.weights is not None:
        parser.error("--dry-run generates its weights: leave out --weights")
    return options


def prepare(options: argparse.Namespace) -> tuple[Inputs, list[Row]]:
    """Check or make the inputs, before any long work.

    Args:
        options: From :func:`parse`.

    Returns:
        The inputs that all rows have in common, and the chosen rows.

    Raises:
        InputError: The data, the weights or ``--rows`` are wrong.
        DataError: A line of the data is wrong, or an image cannot be decoded.
    """
    if options.dry_run:
        out = options.out or Path("runs/muge-dry-run")
        weights = write_weights(out / "weights")
        rows = choose_rows(options.rows, weights)
        data = write_sample(options.data, out)
        settings = (*DRY_SETTINGS, *options.settings)
    else:
        out, data = options.out or Path("runs/muge"), options.data or Path("data/muge")
        weights, settings = options.weights or Path("weights"), tuple(options.settings)
        rows = choose_rows(options.rows, weights)
    if not data.is_dir():
        raise InputError("There is no such folder.", where=data, hint=DATA_HINT)
    counts = counts_of(data, needed_splits(rows), out)
    if not (options.dry_run or options.other_data):
        for split, found in counts.items():
            require_official(found, split, data)
    for split, found in counts.items():
        print(f"{split}: " + ", ".join(f"{number:,} {name}" for name, number in found.items()))
    return Inputs(data, weights, out, settings, steps=1 if options.dry_run else 20), rows


def counts_of(data: Path, splits: Sequence[str], out: Path) -> Result:
    """Count the splits of a dataset, or read the counts of an earlier run of the same files.

    Args:
        data: The dataset.
        splits: The splits that must be complete.
        out: The output folder, which belongs to one dataset.

    Raises:
        InputError: A file is missing, or the output folder belongs to another dataset.
        DataError: A line is wrong, or an image cannot be decoded.
    """
    folder, path = str(data.resolve()), out / "data.json"
    sizes = {file.name: file.stat().st_size for file in sorted(data.iterdir()) if file.is_file()}
    known = next(iter(load_results([path])), None)
    if known is not None and known["folder"] != folder:
        raise InputError(
            "The output folder has rows of another dataset.",
            where=out,
            found=known["folder"],
            expected=folder,
            hint="Name another folder with --out.",
        )
    if (
        known is None
        or known["sizes"] != sizes  # downloaded again, perhaps because a download was cut off
        or any(split not in known["splits"] for split in splits)
    ):
        known = {"folder": folder, "sizes": sizes, "splits": count_splits(data, splits)}
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(known) + "\n")
    counts: Result = known["splits"]
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that have no result and print the table.

    Returns:
        The exit code: 0; 1 if a row failed; 2 for wrong input; 130 after an interruption.
    """
    options = parse(arguments)
    try:
        if options.list:
            weights = options.weights or Path("weights")
            print("\n".join(rows_list({n: missing_files(r, weights) for n, r in ROWS.items()})))
            return 0
        inputs, rows = prepare(options)
        runner = RowRunner(inputs)
        if options.estimate:
            for row in rows:
                print(hours_text(row, runner.estimate(row) if row.config else None), flush=True)
            return 0
        failed = run_rows(runner, rows, inputs.out)
    except CommandFailed as failure:
        if failure.code == INTERRUPTED:
            print("\nInterrupted. The same command continues from here.")
        return failure.code
    except KeyboardInterrupt:  # between two commands
        return INTERRUPTED
    except XmrError as error:
        console.error(error)
        return error.exit_code
    print("\n".join(["", *figures_table(runner.results(), dry=options.dry_run)]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
