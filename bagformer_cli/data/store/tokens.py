"""The titles of a split as tokens and bags on disk, appended chunk by chunk."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bagformer_cli.data.store.arrays import GrowingArray
from bagformer_cli.data.store.split import TOKEN_ARRAYS, Shards, Texts
from bagformer_cli.files import write_text
from bagformer_cli.messages import tr
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.text.bags import TokenBags

_TITLES = 1 << 16  # titles encoded between two saves
_KEEP = 3  # token folders of different encoders that are kept


class Encoder(Protocol):
    """What preprocessing needs of a :class:`~bagformer_cli.text.bags.TitleEncoder`."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal tokens and bags."""

    def __call__(self, titles: Sequence[str]) -> TokenBags:
        """Tokens and bags of titles."""


def encode_titles(
    split: Path,
    name: str,
    encoder: Encoder,
    digest: str,
    *,
    workers: int = 1,
    progress: Progress = SILENT,
) -> None:
    """Write the tokens and bags of a split's titles, chunk by chunk, for one encoder.

    A killed run is taken up where its last chunk ended.

    Args:
        split: The split's folder, whose queries stand.
        name: What to call the split.
        encoder: Makes them; its kernels run beside each other in threads.
        digest: Stands for the queries' content: where it changed, all is made anew.
        workers: Chunks encoded at the same time.
        progress: Where to report.
    """
    folder = split / f"tokens-{encoder.fingerprint}"
    done, place = folder / "done.json", folder / "place.json"
    if read_json(done).get("queries") == digest:
        os.utime(done)  # newest: the one a store without an encoder's name opens
        return
    folder.mkdir(exist_ok=True)
    done.unlink(missing_ok=True)
    texts = Texts(Shards(sorted(split.glob("queries-*.arrow"))))
    state = read_json(place)
    whole = all((folder / f"{field}.npy").is_file() for field in TOKEN_ARRAYS)
    if state.get("queries") != digest or not whole:
        state = {"queries": digest, "titles": 0, "lengths": dict.fromkeys(TOKEN_ARRAYS, 0)}
    arrays = {
        field: GrowingArray(folder / f"{field}.npy", dtype, state["lengths"][field])
        for field, dtype in TOKEN_ARRAYS.items()
    }
    try:
        if not state["titles"]:
            for field in ("token_offsets", "bag_offsets"):
                arrays[field].append(np.zeros(1, np.int64))
        with progress.task(tr("Titles of {split}", split=name), len(texts), tr("titles")) as task:
            task.advance(state["titles"])
            for tokens in _encoded(texts, state["titles"], encoder, workers):
                _append(arrays, tokens)
                state["titles"] += len(tokens)
                _save_place(arrays, state, place)
                task.advance(len(tokens))
        _save_place(arrays, state, place)
    finally:
        for array in arrays.values():
            array.close()
    write_text(done, json.dumps({"queries": digest, "titles": len(texts)}))
    place.unlink(missing_ok=True)
    _forget_old(split)


def _encoded(
    texts: Sequence[str], begin: int, encoder: Encoder, workers: int
) -> Iterator[TokenBags]:
    """Chunks of titles from ``begin`` on, in order; as many are held as there are workers."""

    def chunk(start: int) -> TokenBags:
        return encoder(texts[start : start + _TITLES])

    starts = iter(range(begin, len(texts), _TITLES))
    yield from map(chunk, islice(starts, 1))  # alone: the kernels are loaded once
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
    ids, bags = arrays["ids"].length, arrays["bag_starts"].length
    arrays["ids"].append(tokens.ids)
    arrays["token_offsets"].append(tokens.token_offsets[1:] + ids)
    arrays["bag_starts"].append(tokens.bag_starts + ids)
    arrays["bag_ends"].append(tokens.bag_ends + ids)
    arrays["bag_offsets"].append(tokens.bag_offsets[1:] + bags)


def _save_place(arrays: dict[str, GrowingArray], state: dict[str, Any], place: Path) -> None:
    for array in arrays.values():
        array.sync()
    state["lengths"] = {field: array.length for field, array in arrays.items()}
    write_text(place, json.dumps(state))


def _forget_old(split: Path) -> None:
    finished = sorted(split.glob("tokens-*/done.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in finished[:-_KEEP]:
        shutil.rmtree(path.parent, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
