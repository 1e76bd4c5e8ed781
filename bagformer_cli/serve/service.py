"""The tasks of the routes: search, bags, explanations. HTTP is in ``app.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from bagformer_cli.errors import InputError
from bagformer_cli.index.arrange import DEPTH
from bagformer_cli.index.combined import check_combined
from bagformer_cli.index.lexical import check_fusion
from bagformer_cli.index.results import Results
from bagformer_cli.index.search import Index
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import ModelEncoder
from bagformer_cli.serve.answers import image_uri
from bagformer_cli.serve.batcher import Batcher
from bagformer_cli.serve.settings import ServiceLimits
from bagformer_cli.serve.shards import LocalShard, Query, Shard, quoted, search_shards
from bagformer_cli.text.characters import is_blank
from bagformer_cli.text.type_names import source_names, type_name

if TYPE_CHECKING:
    from PIL import Image

OnSearch = Callable[[int, float, Mapping[str, float]], None]


class SearchService:
    """An open index, or several shards of one, and the thread that searches them.

    Args:
        index: The index.
        limits: Bounds of a request.
        shards: The indexes that are searched, all of the index's model and layout; empty: the index
            itself.

    Attributes:
        on_search: Called after each batch with its number of queries, its seconds, and the seconds
            of its stages.
    """

    def __init__(self, index: Index, limits: ServiceLimits, shards: Sequence[Shard] = ()) -> None:
        self.index, self.limits = index, limits
        self._shards = shards or (LocalShard(index),)
        self.on_search: OnSearch = lambda count, seconds, stages: None
        self.batcher = Batcher(self._search, limits.batch, limits.waiting)

    def close(self) -> None:
        """Answer the requests that wait, then close the index."""
        self.batcher.close()
        for shard in self._shards:
            shard.close()

    def describe(self) -> dict[str, Any]:
        """Return what the page has to know of the index."""
        layout = self.index.engine.layout
        return {
            "products": sum(shard.count() for shard in self._shards),
            "sides": list(layout.sides),
            "attributes": dict(layout.attributes),
            "results": DEPTH,
            "explains": isinstance(self.index.encoder, ModelEncoder),
            "fuses": layout.terms and len(self._shards) == 1,
        }

    def prepare(self, image: bytes) -> Image.Image:
        """Decode an uploaded image and resize it to what the model takes.

        Raises:
            DataError: It is not an image, or it is broken or has too many pixels.
        """
        return self.index.resized(image)

    def search(self, query: Query, options: SearchOptions) -> Future[Results]:
        """Start a search for a title, an image, or both.

        Args:
            query: The query; its image comes from :meth:`prepare`.
            options: How to search, without ``rerank``.

        Raises:
            InputError: The title is empty or too long; or there is no fusion for an image, an
                index without words, or shards.
            TooBusyError: Too many requests are waiting.
        """
        has_title, has_image = query.kind
        if query.title is not None:
            self._check(query.title)
        if has_title and has_image:
            check_combined(query.weight, fusion=options.fusion)
        check_fusion(self.index.engine, options, images=has_image)
        if options.fusion != "none" and len(self._shards) > 1:
            raise InputError(
                tr("Words are ranked within one index, and this catalogue is in shards."),
                found=f"fusion={options.fusion}",
                expected="fusion=none",
            )
        return self.batcher.submit(query, options, query.kind)

    def bags(self, title: str) -> list[dict[str, Any]]:
        """Cut a title into bags; ``name`` is the type, else the source, in the user's language."""
        if is_blank(title):
            return []
        self._check(title)
        sources = source_names()
        return [
            {
                "text": bag.text,
                "type": bag.type,
                "source": bag.source,
                "name": type_name(bag.type) if bag.type else sources[bag.source],
            }
            for bag in self.index.encoder.titles.bags(title)
        ]

    def explain(self, title: str, product: str) -> dict[str, Any]:
        """Explain the score of a title and a product, by its thumbnail.

        Raises:
            InputError: The index has no such product, or the product no thumbnail; or the model
                is an exported one.
        """
        self._check(title)
        encoder = self.index.encoder
        if not isinstance(encoder, ModelEncoder):
            raise InputError(tr("An exported model cannot explain its scores."))
        # A service of an exported model runs where torch is not installed (Dockerfile).
        from bagformer_cli.models.score_explanation import explain_score
        from bagformer_cli.pages.heat_map import overlays, part_name

        options = SearchOptions(k=1, where=f"id = {quoted(product)}", thumbnails=True)
        found = search_shards(self.index, self._shards, [Query(title)], options)
        hit = next(iter(found[0]), None)
        if hit is None or hit.thumbnail is None:
            raise InputError(tr("The index has no image of this product."), found=product)
        image = self.index.encode([hit.thumbnail], images=True).tensors[0]
        vectors = self.index.encode([title]).tensors[0]
        explained = explain_score(encoder.model, title, vectors.values, image.values)
        return {
            "thumbnail": image_uri(hit.thumbnail),
            "score": explained.t2i,
            "mean": explained.t2i / max(1, len(explained.parts)),
            "parts": [
                {
                    "text": part_name(part),
                    "score": part.score,
                    "share": part.share,
                    "map": None if colours is None else image_uri(colours),
                }
                for part, colours in zip(explained.parts, overlays(explained.parts), strict=True)
            ],
        }

    def _check(self, title: str) -> None:
        if is_blank(title):
            raise InputError(tr("The query is empty."))
        if len(title) > self.limits.title_characters:
            raise InputError(
                tr("The query is too long."),
                found=tr("{n} characters", n=len(title)),
                expected=tr("at most {n}", n=self.limits.title_characters),
            )

    def _search(self, queries: Sequence[Query], options: SearchOptions) -> list[Results]:
        started = time.perf_counter()
        found = search_shards(self.index, self._shards, queries, options)
        stages = {name: value for name, value in found[0].seconds.items() if "." not in name}
        self.on_search(len(queries), time.perf_counter() - started, stages)
        return found
