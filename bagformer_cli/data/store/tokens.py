"""Tokens and bags of a split's titles, written to disk chunk by chunk.

Each field of :class:`~bagformer_cli.text.bags.TokenBags` is one ``.npy`` file that grows. After a
chunk, the files are flushed and ``place.json`` records their lengths; after a kill, the next run
cuts the files to those lengths and continues with the next title::

    tokens-<fingerprint>/
        ids.npy token_offsets.npy bag_starts.npy bag_ends.npy bag_offsets.npy
        place.json   {"queries": digest, "titles": 131072, "lengths": {"ids": 1500000, …}}
        done.json    {"queries": digest, "titles": 260000, "crc32": {"ids": 3735928559, …}}:
                     complete; place.json is gone

Damaged arrays are found by their CRC-32 when the store is opened, and all titles are encoded again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from bagformer_cli.data.store.arrays import GrowingArray, npy_header_bytes
from bagformer_cli.data.store.split import TOKEN_ARRAYS, Texts, load_tokens, shards_of
from bagformer_cli.errors import DataError
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TokenBags
from bagformer_cli.text.cut_titles import CutTitles

_TITLES = 1 << 16  # titles of a chunk: encoded between two saves
_KEEP = 3  # token folders, of different encoders, that are kept


class Encoder(Protocol):
    """The part of a :class:`~bagformer_cli.text.bags.TitleEncoder` that preprocessing uses."""

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder: equal fingerprints give equal tokens and bags."""

    @property
    def max_tokens(self) -> int:
        """Tokens of a title that are kept at most."""

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        """Encode titles to tokens and bags."""

    def take_cut(self) -> CutTitles:
        """Return the titles that were cut since the last call."""


def encode_titles(
    split: Path,
    encoder: Encoder,
    digest: str,
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> None:
    """Write the tokens and bags of a split's titles for one encoder, or continue a killed run.

    Args:
        split: Folder of the split; its query shards must be complete.
        encoder: Makes tokens and bags. Its kernels release the GIL, so threads run in parallel.
        digest: Digest of the queries. If it differs from the recorded one, all titles are encoded
            again.
        workers: Chunks encoded at the same time, by threads.
        progress: Receives the number of titles done.
    """
    folder = split / f"tokens-{encoder.fingerprint}"
    done, state_path = folder / "done.json", folder / "place.json"
    record = read_json(done)
    if record.get("queries") == digest:
        if _is_whole(folder, record):
            with suppress(OSError):  # a store may be read-only
                os.utime(done)  # now the newest: a store opened without an encoder uses it
            _warn_of_cut(record, encoder, progress)
            return
        progress.warn(tr("A file of the preprocessed dataset is damaged; it is made again: {path}",
                         path=folder))  # fmt: skip
    folder.mkdir(exist_ok=True)
    done.unlink(missing_ok=True)
    texts = Texts(shards_of(split, "queries"))
    state = read_json(state_path)
    if state.get("queries") != digest or not _can_continue(folder, state):
        state = {"queries": digest, "titles": 0, "lengths": dict.fromkeys(TOKEN_ARRAYS, 0)}
    arrays = {
        field: GrowingArray(folder / f"{field}.npy", dtype, state["lengths"][field])
        for field, dtype in TOKEN_ARRAYS.items()
    }
    try:
        if not state["titles"]:
            for field in ("token_offsets", "bag_offsets"):
                arrays[field].append(np.zeros(1, np.int64))
        with progress.task(
            tr("Titles of {split}", split=split.name), len(texts), tr("{n} titles", n="{n}")
        ) as task:
            task.advance(state["titles"])
            for tokens in _encoded(texts, state["titles"], encoder, workers):
                _append(arrays, tokens)
                cut = CutTitles.from_json(state.get("cut")).plus(encoder.take_cut())
                state["cut"] = cut._asdict()
                state["titles"] += len(tokens)
                _save_state(arrays, state, state_path)
                task.advance(len(tokens))
        _save_state(arrays, state, state_path)
    finally:
        for array in arrays.values():
            array.close()
    record = {
        "queries": digest,
        "titles": len(texts),
        "crc32": _checksums(folder),
        "cut": state.get("cut"),
    }
    write_text(done, json.dumps(record))
    state_path.unlink(missing_ok=True)
    _remove_old_tokens(split)
    _warn_of_cut(record, encoder, progress)


def _warn_of_cut(record: dict[str, Any], encoder: Encoder, progress: Progress) -> None:
    if sentence := CutTitles.from_json(record.get("cut")).sentence(encoder.max_tokens):
        progress.warn(sentence)


def _is_whole(folder: Path, record: dict[str, Any]) -> bool:
    """Check the finished arrays: their content, and that they fit each other."""
    try:
        load_tokens(folder)
        return bool(record.get("crc32") == _checksums(folder))
    except (DataError, OSError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    found = {}
    for field in TOKEN_ARRAYS:
        checksum = 0
        with open(folder / f"{field}.npy", "rb") as stream:
            while part := stream.read(1 << 20):
                checksum = crc32(part, checksum)
        found[field] = checksum
    return found


def _can_continue(folder: Path, state: dict[str, Any]) -> bool:
    """Say whether the arrays are as long as the state of a killed run says."""
    try:
        sizes = {field: (folder / f"{field}.npy").stat().st_size for field in TOKEN_ARRAYS}
        return all(
            sizes[field]
            >= npy_header_bytes(dtype) + state["lengths"][field] * np.dtype(dtype).itemsize
            for field, dtype in TOKEN_ARRAYS.items()
        )
    except (OSError, KeyError, TypeError):
        return False


def _encoded(
    texts: Sequence[str], begin: int, encoder: Encoder, workers: int
) -> Iterator[TokenBags]:
    """Encode chunks of titles from ``begin`` on, in order, at most ``workers`` ahead."""

    def chunk(start: int) -> TokenBags:
        return encoder(texts[start : start + _TITLES])

    starts = iter(range(begin, len(texts), _TITLES))
    yield from map(chunk, islice(starts, 1))  # alone, so that kernels are compiled once
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(chunk, start) for start in islice(starts, workers))
        try:
            while waiting:
                tokens = waiting.popleft().result()
                waiting.extend(pool.submit(chunk, start) for start in islice(starts, 1))
                yield tokens
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _append(arrays: dict[str, GrowingArray], tokens: TokenBags) -> None:
    # Offsets in a chunk count from its own start; in the files, from the start of the split.
    ids, bags = arrays["ids"].length, arrays["bag_starts"].length
    arrays["ids"].append(tokens.ids)
    arrays["token_offsets"].append(tokens.token_offsets[1:] + ids)
    arrays["bag_starts"].append(tokens.bag_starts + ids)
    arrays["bag_ends"].append(tokens.bag_ends + ids)
    arrays["bag_offsets"].append(tokens.bag_offsets[1:] + bags)


def _save_state(arrays: dict[str, GrowingArray], state: dict[str, Any], state_path: Path) -> None:
    for array in arrays.values():
        array.sync()
    state["lengths"] = {field: array.length for field, array in arrays.items()}
    write_text(state_path, json.dumps(state))


def _remove_old_tokens(split: Path) -> None:
    finished = sorted(split.glob("tokens-*/done.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in finished[:-_KEEP]:
        shutil.rmtree(path.parent, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is missing or is not one."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
