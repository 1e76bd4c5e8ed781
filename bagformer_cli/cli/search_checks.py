"""Checks of the options of ``xmr search``, before and after the search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bagformer_cli.cli.failures import excluding_options
from bagformer_cli.errors import InputError, PathError, listed, shell_word
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.engine import Engine
    from bagformer_cli.index.features import StoredQueries


def query_vectors(features: Path, index: str, rerank: int) -> StoredQueries:
    """Read the queries of ``--features``."""
    from bagformer_cli.index.engines import open_engine
    from bagformer_cli.index.features import read_queries

    if rerank:
        raise excluding_options("xmr search", ["--features", "--rerank"])
    return read_queries(features, open_engine(index))


def check_queries(queries: list[str], images: list[Path], weight: float | None) -> None:
    """Raise InputError unless all queries can be searched for, alone or together.

    Args:
        queries: Texts.
        images: Image files; with texts, one that each text is combined with.
        weight: Value of ``--weight``, which needs both; None: not given.
    """
    if not queries and not images:
        raise InputError(
            tr("There is nothing to search for."),
            where="xmr search",
            expected=tr("a text query, or --image"),
            hint=tr("`{command}` shows its usage.", command="xmr search --help"),
        )
    if queries and len(images) > 1:
        raise InputError(
            tr("Texts are combined with one image."),
            where="xmr search",
            found=tr("{n} images", n=len(images)),
            hint=tr("Search with one --image at a time."),
        )
    if weight is not None and not (queries and images):
        raise InputError(
            tr("--weight divides the score between a text and an image."),
            found=f"--weight {weight:g}",
            hint=tr("Give both a text and --image, or leave out --weight."),
        )
    from bagformer_cli.text.characters import is_blank

    for text in queries:
        if is_blank(text):
            raise InputError(
                tr("A query is empty."),
                found=repr(text),
                expected=tr("at least one visible character"),
            )
    for path in images:
        if path.is_dir():
            raise PathError(tr("This is a folder; a file was expected."), path, "folder")
        if not path.is_file():
            raise PathError(tr("No such file."), path, "missing")


def require_output(path: Path) -> None:
    """Raise InputError unless a file name says in which form results are written."""
    from bagformer_cli.index.run_files import RUN_FILES

    forms = (".html", ".htm", *RUN_FILES)
    if path.suffix.lower() not in forms:
        raise InputError(
            tr("The ending of the file name says how results are written."),
            where=path,
            expected=listed(path.stem + form for form in (".html", *RUN_FILES)),
        )


def refuse_unused_options(
    index: str, recall: str, candidates: int | None, rerank: int, beta: float | None
) -> None:
    """Raise InputError if an option is given that the others leave without effect."""
    if candidates is not None and recall != "vector" and not index.startswith("qdrant"):
        raise InputError(
            tr("--candidates has an effect with --recall vector only."),
            found=f"--candidates {candidates} --recall {recall}",
            hint=tr("Add --recall vector, or leave out --candidates."),
        )
    if beta is not None and not rerank:
        raise InputError(
            tr("--beta is the weight of a merged score, and nothing is reranked."),
            found=f"--beta {beta:g}",
            hint=tr("Say how many results to rerank: --rerank 50"),
        )


def explain_nothing(engine: Engine, index: str, of: str) -> None:
    """Raise InputError if no query at all could find a product of this index."""
    hint = tr("`{command}` shows what it holds.", command=f"xmr index info {index}")
    if not engine.count():
        raise InputError(tr("The index is empty."), where=index, hint=hint)
    sides = engine.info()["sides"]
    if sides[of.removesuffix("s")]:
        return
    if of == "titles":
        message, other = tr("No product of this index has a title."), "images"
    else:
        message, other = tr("No product of this index has an image."), "titles"
    if sides[other.removesuffix("s")]:
        hint = tr("Search with --of {side}.", side=other)
    likely = _likely_images(engine) if of == "images" else None
    if likely is not None:
        again = tr(
            "The values of '{name}' look like images: build the index again with --column "
            "image={heading}.",
            name=likely,
            heading=shell_word(likely),
        )
        hint = tr("{sentence} {hint}", sentence=again, hint=hint)
    raise InputError(message, where=index, hint=hint)


def _likely_images(engine: Engine) -> str | None:
    """Return the attribute with the most values that end like image files, or None."""
    names = [name for name, kind in engine.layout.attributes.items() if kind == "str"]
    counts = {
        name: sum(engine.count(f"`{name}` LIKE '%{end}'") for end in (".jpg", ".png", ".webp"))
        for name in names
    }
    return max(names, key=counts.__getitem__) if any(counts.values()) else None
