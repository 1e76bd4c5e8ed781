"""Search an index: encode the query, recall, late interaction, rerank, fetch.

The stages, and the file of each::

    encode   query → vectors                                    models/item_encoder.py
    recall   best rows, or candidates by single vectors         first_stage.py
    late     order such candidates by late interaction          (skipped after an exact recall)
    terms    fuse with the ranking by titles' terms             lexical.py  (only with fusion)
    rerank   a cross-encoder scores the best few                rerank.py   (only with rerank > 0)
    fetch    titles, attributes, thumbnails of the results      hits.py, arrange.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from bagformer_cli.calibration import Calibration
from bagformer_cli.data.images import decode, resize
from bagformer_cli.errors import InputError
from bagformer_cli.index.arrange import Arranged, arrange
from bagformer_cli.index.combined import WEIGHT, check_combined, find_both
from bagformer_cli.index.engine import Engine, Queries
from bagformer_cli.index.engines import open_engine
from bagformer_cli.index.first_stage import first_stage
from bagformer_cli.index.hits import fetch_hits, with_thumbnails
from bagformer_cli.index.lexical import LexicalSearch, check_fusion
from bagformer_cli.index.model_of_index import gpu_of, model_folder
from bagformer_cli.index.probabilities import index_calibration, with_probabilities
from bagformer_cli.index.ranking import Ranking
from bagformer_cli.index.rerank import rerank
from bagformer_cli.index.results import Hit, Results
from bagformer_cli.index.rows import FEATURES, Side, wrong_model
from bagformer_cli.index.search_options import SearchOptions
from bagformer_cli.index.search_profile import SearchProfile
from bagformer_cli.messages import tr
from bagformer_cli.models.item_encoder import AnyEncoder, encoder_of
from bagformer_cli.models.load_encoder import load_encoder
from bagformer_cli.progress import SILENT, Progress
from bagformer_cli.runtime.folder import Runtime, runtime_folder
from bagformer_cli.text.characters import is_blank

if TYPE_CHECKING:
    from PIL import Image


class Index:
    """An index, and the model that encodes its queries.

    >>> index = Index.open("index/")                                # doctest: +SKIP
    >>> index.search("红色碎花裙", where="price < 200", k=20)          # doctest: +SKIP

    Attributes:
        calibration: Gives hits their probability; None: they have none. :meth:`open` reads it from
            the model folder.

    Args:
        engine: The index.
        model: The model that its rows were encoded with, or an encoder of it.

    Raises:
        InputError: It is another model.
    """

    def __init__(self, engine: Engine, model: AnyEncoder) -> None:
        encoder = encoder_of(model)
        if encoder.fingerprint != engine.layout.model:
            raise wrong_model(engine.layout, encoder.fingerprint, engine.uri)
        self.engine, self.encoder = engine, encoder
        self.calibration: Calibration | None = None

    @classmethod
    def open(
        cls,
        uri: str | Path,
        checkpoint: str | Path | None = None,
        *,
        model: AnyEncoder | None = None,
        device: str | None = None,
        runtime: Runtime = "torch",
        trust: bool = False,
        progress: Progress = SILENT,
    ) -> Self:
        """Open an index for searching.

        Args:
            uri: A folder, ``s3://bucket/path`` or ``qdrant://host:6333/collection``.
            checkpoint: The model folder. None: the one the index was built with.
            model: The model, if it is already loaded.
            device: The device of a model that is loaded here. None: a GPU if there is one. A GPU
                also keeps the vectors of an index in LanceDB and computes the late interaction.
            runtime: ``onnx``: encode queries, and rerank, with the exported model.
            trust: Open the model that the index names wherever it is.
            progress: Where searches report that they copy vectors to the cache.

        Raises:
            InputError: There is no index, the model is another one, or the index names a model
                that the user has not chosen (see ``index.trust``).
        """
        engine = open_engine(str(uri))
        engine.progress = progress
        if model is None and engine.layout.model == FEATURES:
            raise wrong_model(engine.layout, "", engine.uri)
        calibration = None
        if model is None:
            folder = runtime_folder(model_folder(engine, checkpoint, trust, progress), runtime)
            model = load_encoder(folder, device)
            if model.fingerprint != engine.layout.model:
                raise wrong_model(engine.layout, model.fingerprint, engine.uri, folder)
            calibration = index_calibration(folder, engine.layout, model.scoring, progress)
        engine.device = gpu_of(model)
        opened = cls(engine, model)
        opened.calibration = calibration
        return opened

    def search(
        self,
        query: str | Path | bytes | Image.Image | None = None,
        *,
        image: str | Path | bytes | Image.Image | None = None,
        weight: float = WEIGHT,
        **options: Any,
    ) -> Results:
        """Find the products that fit a title, an image, or both.

        Args:
            query: A title.
            image: An image: opened, a path, or the content of a file.
            weight: With both: score = (1 − weight) × title + weight × image, of mean scores.
            **options: The fields of :class:`SearchOptions`.

        Raises:
            InputError: The query is empty or broken, or the filter is wrong.
        """
        if query is None and image is None:
            raise InputError(tr("A search takes a title, an image, or both."))
        if query is not None and image is not None:
            return self.search_combined(query, image, weight, SearchOptions(**options))
        queries = [query] if image is None else [image]
        return self.search_many(queries, SearchOptions(**options), images=image is not None)[0]

    def search_many(
        self,
        queries: Sequence[Any],
        options: SearchOptions | None = None,
        *,
        images: bool = False,
        encoded: Queries | None = None,
    ) -> list[Results]:
        """Search for several queries; an exact scan reads the vectors once for all of them.

        Args:
            queries: Titles or images; see :meth:`search`.
            options: How to search.
            images: Whether the queries are images.
            encoded: The vectors of the queries, if they are known. None: encode them.

        Raises:
            InputError: A query is empty or broken, the filter is wrong, or the model has no trained
                cross-encoder for ``rerank``.
        """
        given = options or SearchOptions()
        self._check(given, images)
        if not queries:
            return []
        # Sorting, counting and later pages need more hits than are returned.
        options = replace(given, k=given.arrangement.depth(given.k))
        profile = SearchProfile()
        with profile.timed("encode"):
            encoded = encoded or self.encode(queries, images=images, of=options.of)
        engine = self.engine.snapshot(options.of, options.recall)  # all stages see one version
        rankings = first_stage(engine, encoded, options, profile)
        suggestions: list[str | None] = [None] * len(queries)
        if options.fusion != "none":
            with profile.timed("terms"):
                lexical = LexicalSearch(engine, self.encoder.titles.segmenter, options, given.k)
                rankings, suggestions = lexical.fuse(queries, encoded, rankings)
            profile.add("fusion", options.fusion, lexical.note)
        if options.rerank:
            beta = self.encoder.beta if options.beta is None else options.beta
            with profile.timed("rerank"):
                rankings = rerank(
                    self.encoder,
                    engine,
                    (queries, images),
                    encoded,
                    rankings,
                    count=options.rerank,
                    beta=beta,
                )
            note = tr("slow + {beta} × late for the best {n}", beta=beta, n=options.rerank)
            profile.add("rerank", "cross-encoder", note)
        with profile.timed("fetch"):
            hits, keys = fetch_hits(engine, rankings, options)
            if self.calibration is not None:
                hits = with_probabilities(hits, self.calibration, images, options.of)
            pages = self._pages(engine, hits, keys, given)
        return _results(pages, profile, suggestions)

    def search_combined(
        self,
        title: Any,
        image: Any,
        weight: float = WEIGHT,
        options: SearchOptions | None = None,
        *,
        encoded: tuple[Queries, Queries] | None = None,
    ) -> Results:
        """Find the products that fit a title and an image: a weighted sum of both mean scores.

        Args:
            title: The title.
            image: The image: opened, a path, or the content of a file.
            weight: score = (1 − weight) × title + weight × image; from 0 to 1.
            options: How to search, without ``rerank`` and ``fusion``.
            encoded: The vectors of the title and of the image, if they are known. None: encode
                them.

        Raises:
            InputError: As :meth:`search_many`; or the weight or an option is wrong.
        """
        given = options or SearchOptions()
        check_combined(weight, rerank=given.rerank, fusion=given.fusion)
        self._check(given, images=False)
        options = replace(given, k=given.arrangement.depth(given.k))
        profile = SearchProfile()
        with profile.timed("encode"):
            both = encoded or (
                self.encode([title], of=given.of),
                self.encode([image], images=True, of=given.of),
            )
        engine = self.engine.snapshot(given.of, given.recall)
        found = find_both(engine, *both, weight, options, profile)
        with profile.timed("fetch"):
            ranking = Ranking.by_late_interaction(found.keys, found.scores, found.scores)
            (hits,), keys = fetch_hits(engine, [ranking], options)
            pages = self._pages(engine, [found.with_parts(hits, keys)], keys, given)
        return _results(pages, profile, [None])[0]

    def _pages(
        self,
        engine: Engine,
        hits: Sequence[list[Hit]],
        keys: Mapping[str, Any],
        options: SearchOptions,
    ) -> list[Arranged]:
        """Arrange the hits of each query, and fetch the thumbnails of those that are returned."""
        titles = self.encoder.titles if options.arrangement.without else None
        pages = [arrange(own, options.arrangement, options.k, titles) for own in hits]
        if not options.thumbnails:
            return pages
        shown = with_thumbnails(engine, [page.hits for page in pages], keys)
        return [replace(page, hits=own) for page, own in zip(pages, shown, strict=True)]

    def encode(
        self, queries: Sequence[Any], *, images: bool = False, of: Side = "image"
    ) -> Queries:
        """Encode titles or images as queries, with the rule by which the model scores them.

        Args:
            queries: Titles or images.
            images: Whether they are images.
            of: The side of the products that they will be compared with.

        Raises:
            InputError: A title is empty, or an image cannot be read.
        """
        if images:
            pixels = np.stack([np.asarray(self.resized(image)) for image in queries])
            encoded = self.encoder.encode_pixels(pixels)
        else:
            for title in queries:
                if not isinstance(title, str) or is_blank(title):
                    raise InputError(tr("The title is empty."), found=repr(title))
            encoded = self.encoder.encode_titles(list(queries))
        single = encoded.single(self.engine.layout.single_vector)
        rule = self.encoder.scoring.rule(images, of == "image")
        return Queries(encoded.vectors, single, rule)

    def resized(self, image: str | Path | bytes | Image.Image) -> Image.Image:
        """Decode an image and resize it to what the encoder takes.

        A query that waits for a search needs less memory so; to resize it again changes nothing.

        Raises:
            InputError: There is no such file.
            DataError: It is not an image, or it is broken or too large.
        """
        from PIL import Image

        size = self.encoder.image_size
        if isinstance(image, Image.Image) and image.mode == "RGB" and image.size == (size, size):
            return image
        decoded = decode(image, as_original=self.encoder.as_original)
        return Image.fromarray(resize(decoded, size))

    def _check(self, options: SearchOptions, images: bool) -> None:
        if options.k < 1:
            raise InputError(tr("k must be at least 1."), found=options.k)
        if options.arrangement.offset < 0:
            raise InputError(tr("The offset must be at least 0."), found=options.arrangement.offset)
        options.arrangement.check(self.engine.layout.attributes)
        check_fusion(self.engine, options, images=images)
        if not options.rerank:
            return
        self.encoder.require_reranking()
        if images == (options.of == "image"):
            raise InputError(
                tr("The cross-encoder compares a title with an image."),
                found=options.of,
                hint=tr("Leave out --rerank."),
            )


def _results(
    pages: Sequence[Arranged], profile: SearchProfile, suggestions: Sequence[str | None]
) -> list[Results]:
    """Make the results of all queries."""
    seconds = profile.rounded_seconds()
    return [
        Results(page.hits, profile.plan, seconds, suggestion, page.total, page.facets)
        for page, suggestion in zip(pages, suggestions, strict=True)
    ]
