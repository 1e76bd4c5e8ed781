"""Search: recall, late interaction over the candidates, then perhaps the slow scorer.

Shapes: Q queries, k results.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bagformer_cli.data.batches import TextBatch, pixels_of
from bagformer_cli.data.images import decode
from bagformer_cli.errors import InputError
from bagformer_cli.index.encode import one_of
from bagformer_cli.index.engine import Engine, Found, Queries, Recall
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.rerank import slow_scores
from bagformer_cli.index.rows import Side, wrong_model
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel, require_cross_encoder
from bagformer_cli.models.checkpoint import find_checkpoint, load_model
from bagformer_cli.models.encode import encode_images, encode_texts
from bagformer_cli.models.fingerprint import fingerprint

if TYPE_CHECKING:
    from PIL import Image

CANDIDATES = 200
"""Candidates of a one-vector recall, at least; the late interaction orders them."""


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        rank: From 1.
        score: What it is ordered by.
        mean: The late interaction's score a vector of the query: a cosine, whatever its length.
        id: The product's.
        title: Its title, or None.
        image: Where its image was, or None.
        attributes: What else is known of it.
        stage: What gave the score: ``late``, or ``merged`` where the slow scorer saw the product;
            such stand before all others.
        fast: The late interaction's score.
        slow: The slow scorer's, where it saw the product.
        thumbnail: A small picture, the file's content.
    """

    rank: int
    score: float
    mean: float
    id: str
    title: str | None
    image: str | None
    attributes: dict[str, Any]
    stage: str
    fast: float
    slow: float | None = None
    thumbnail: bytes | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Everything but the picture."""
        return {name: value for name, value in vars(self).items() if name != "thumbnail"}


@dataclass(frozen=True)
class Results:
    """What one search found.

    Attributes:
        hits: Best first.
        plan: The stages: what each did, and why this way.
        seconds: By stage and step; of a search of several queries, of all of them.
    """

    hits: list[Hit]
    plan: list[dict[str, Any]]
    seconds: dict[str, float]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)


class Index:
    """An index and the model that its vectors are of.

    >>> index = Index.open("index/")                                # doctest: +SKIP
    >>> index.search("红色碎花裙", where="price < 200", k=20)          # doctest: +SKIP

    Args:
        engine: Where the rows are.
        model: Encodes queries; it must be the one the rows were encoded with.

    Raises:
        InputError: It is another model.
    """

    def __init__(self, engine: Engine, model: RetrievalModel) -> None:
        found = fingerprint(model)
        if found != engine.layout.model:
            raise wrong_model(engine.layout, found, engine.uri)
        self.engine, self.model = engine, model

    @classmethod
    def open(
        cls,
        uri: str | Path,
        checkpoint: str | Path | None = None,
        *,
        model: RetrievalModel | None = None,
        device: str | None = None,
    ) -> Self:
        """Open an index for searching.

        Args:
            uri: A folder, ``s3://bucket/path`` or ``qdrant://host:6333/collection``.
            checkpoint: The model folder; None: the one the index was built with.
            model: The model, where it is loaded already.
            device: Where it runs; None: a GPU if there is one.

        Raises:
            InputError: There is no index, or the model is another one.
        """
        engine = open_engine(str(uri))
        if model is None:
            if device is None:
                device = "cuda" if torch.cuda.is_available() else "cpu"
            model = load_model(model_folder(engine, checkpoint), device)
        return cls(engine, model)

    def search(
        self,
        query: str | Path | bytes | Image.Image | None = None,
        *,
        image: str | Path | bytes | Image.Image | None = None,
        k: int = 10,
        where: str | None = None,
        of: Side = "image",
        recall: Recall = "auto",
        candidates: int | None = None,
        rerank: int = 0,
        beta: float | None = None,
        thumbnails: bool = False,
    ) -> Results:
        """The products that fit a title, or an image.

        Args:
            query: A title.
            image: An image instead: opened, a path, or a file's content.
            k: How many.
            where: A filter over id, title and attributes, in SQL.
            of: What is compared with the query: the products' images, or their titles.
            recall: The first stage; ``auto`` lets the planner choose.
            candidates: How many a first stage of one vector gives to the late interaction.
            rerank: How many of the best the slow scorer sees; 0: it is left out.
            beta: Merged score = slow + beta × late interaction; None: the model's.
            thumbnails: Bring the products' small pictures along.

        Raises:
            InputError: The query is empty or broken, or the filter is.
        """
        if (query is None) == (image is None):
            raise InputError(tr("A search takes a title or an image."))
        asked = [query] if image is None else [image]
        return self.search_many(
            asked, images=image is not None, k=k, where=where, of=of, recall=recall,
            candidates=candidates, rerank=rerank, beta=beta, thumbnails=thumbnails,
        )[0]  # fmt: skip

    def search_many(
        self,
        queries: Sequence[Any],
        *,
        images: bool = False,
        k: int = 10,
        where: str | None = None,
        of: Side = "image",
        recall: Recall = "auto",
        candidates: int | None = None,
        rerank: int = 0,
        beta: float | None = None,
        thumbnails: bool = False,
    ) -> list[Results]:
        """Several searches at once: a scan reads the index once for all. See :meth:`search`."""
        if k < 1:
            raise InputError(tr("At least one result must be asked for."), found=k, expected="≥ 1")
        slow = rerank > 0
        if slow:
            require_cross_encoder(self.model, self.engine.layout.checkpoint)
        if slow and images == (of == "image"):
            raise InputError(
                tr("The cross-encoder compares a title with an image."),
                found=of,
                hint=tr("Leave out --rerank."),
            )
        seconds: dict[str, float] = {}
        plan: list[dict[str, Any]] = []
        with _timed(seconds, "encode"):
            encoded = self.encode(queries, images=images)
        wanted = max(k, rerank)
        first = max(candidates or CANDIDATES, wanted)
        with _timed(seconds, "recall"):
            found = self.engine.recall(of, encoded, wanted, where, recall, candidates=first)
        seconds |= {f"recall.{name}": value for name, value in found.seconds.items()}
        plan.append({"stage": "recall", "method": found.method, "note": found.note})
        if not found.late:
            with _timed(seconds, "late"):
                found = self._late(of, encoded, found)
            note = tr("{n} candidates", n=max(map(len, found.keys), default=0))
            plan.append({"stage": "late", "method": "maxsim", "note": note})
        keys = [row[:wanted] for row in found.keys]
        fast = [row[:wanted] for row in found.scores]
        scores, slows = fast, [np.full(len(row), np.nan, np.float32) for row in fast]
        if slow:
            weight = self.model.config.evaluation.beta if beta is None else beta
            with _timed(seconds, "rerank"):
                keys, fast, scores, slows = self._rerank(
                    queries, images, keys, fast, rerank, weight
                )
            note = tr("slow + {beta} × late for the best {n}", beta=weight, n=rerank)
            plan.append({"stage": "rerank", "method": "cross-encoder", "note": note})
        with _timed(seconds, "fetch"):
            hits = self._hits(keys, scores, fast, slows, encoded, k, thumbnails)
        seconds = {name: round(value, 6) for name, value in seconds.items()}
        return [Results(own, plan, seconds) for own in hits]

    def encode(self, queries: Sequence[Any], *, images: bool = False) -> Queries:
        """Titles or images as queries."""
        if images:
            size = self.model.config.image.size
            pixels = torch.stack([pixels_of(decode(image), size) for image in queries])
            encoded = encode_images(self.model, [pixels])
        else:
            for title in queries:
                if not isinstance(title, str) or not title.strip():
                    raise InputError(tr("The title is empty."), found=repr(title))
            titles = self.model.titles
            batch = TextBatch.from_tokens(titles(list(queries)), titles.tokenizer.pad_id)
            encoded = encode_texts(self.model, [batch])
        vectors = encoded.vectors.to("cpu", torch.float32)
        return Queries(vectors, one_of(encoded, self.engine.layout.one).float())

    def _late(self, of: Side, queries: Queries, found: Found) -> Found:
        scores = self.engine.late(of, queries, found.keys)
        orders = [np.argsort(-row, kind="stable") for row in scores]
        found.keys = [row[order] for row, order in zip(found.keys, orders, strict=True)]
        found.scores = [row[order] for row, order in zip(scores, orders, strict=True)]
        return found

    def _rerank(
        self,
        queries: Sequence[Any],
        images: bool,
        keys: list[NDArray[Any]],
        fast: list[NDArray[np.float32]],
        count: int,
        beta: float,
    ) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        """The slow scorer's best first; behind them, as they were, those that it did not see."""
        results: tuple[list[Any], ...] = ([], [], [], [])
        for query, own, late in zip(queries, keys, fast, strict=True):
            rows = self.engine.rows(own[:count], ["image", "thumbnail", "title"])
            slow = np.full(len(own), np.nan, np.float32)
            slow[: len(rows)] = slow_scores(self.model, query, images, rows)
            scores = np.where(np.isnan(slow), late, slow + beta * late)
            order = np.lexsort((np.where(np.isnan(slow), 0, -scores), np.isnan(slow)))
            for result, values in zip(results, (own, late, scores, slow), strict=True):
                result.append(values[order])
        return results[0], results[1], results[2], results[3]

    def _hits(
        self,
        keys: list[NDArray[Any]],
        scores: list[NDArray[np.float32]],
        fast: list[NDArray[np.float32]],
        slows: list[NDArray[np.float32]],
        queries: Queries,
        k: int,
        thumbnails: bool,
    ) -> list[list[Hit]]:
        names = list(self.engine.layout.attributes)
        columns = ["id", "title", "image", *names, *(["thumbnail"] if thumbnails else [])]
        flat = np.concatenate([row[:k] for row in keys])
        unique, inverse = np.unique(flat, return_inverse=True)
        rows = self.engine.rows(unique, columns)
        lengths = queries.vectors.lengths.tolist()
        hits: list[list[Hit]] = []
        place = 0
        for own, score, late, slow, length in zip(keys, scores, fast, slows, lengths, strict=True):
            hits.append([])
            for rank in range(min(k, len(own))):
                row = rows[int(inverse[place])]
                place += 1
                hits[-1].append(
                    Hit(
                        rank + 1,
                        float(score[rank]),
                        float(late[rank]) / max(1, length),
                        row["id"],
                        row["title"],
                        row["image"],
                        {name: row[name] for name in names if row[name] is not None},
                        "late" if np.isnan(slow[rank]) else "merged",
                        float(late[rank]),
                        None if np.isnan(slow[rank]) else float(slow[rank]),
                        row.get("thumbnail"),
                    )
                )
        return hits


def model_folder(engine: Engine, checkpoint: str | Path | None) -> Path:
    """The model folder to search with: the one given, else the one the index was built with.

    Raises:
        InputError: The index's model is gone and none was given.
    """
    if checkpoint is not None:
        return find_checkpoint(checkpoint)
    known = engine.layout.checkpoint
    if known and Path(known).is_dir():
        return Path(known)
    if not known:
        return find_checkpoint(None)
    raise InputError(
        tr("The model that the index was built with is not where it was."),
        where=known,
        hint=tr("Give its folder with --checkpoint."),
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
