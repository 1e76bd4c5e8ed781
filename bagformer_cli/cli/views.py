"""Print what several commands show: recall, a title as its coloured bags, and some warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from bagformer_cli.cli import console
from bagformer_cli.messages import tr

SOURCE_STYLES = {"lexicon": "bold green", "pattern": "bold cyan", "token": ""}
TYPE_STYLES = {  # of dictionary entries that are not of type "word"
    "brand": "bold magenta",
    **dict.fromkeys(("colour", "material", "pattern", "style", "function"), "yellow"),
    **dict.fromkeys(("audience", "season", "scene", "place"), "blue"),
    "selling": "dim",
}


class BagLike(Protocol):
    """The part of a bag that :func:`show_bags` reads (``text.segmenter.Bag`` has it)."""

    @property
    def text(self) -> str:
        """The characters of the bag."""

    @property
    def source(self) -> str:
        """``lexicon``, ``pattern`` or ``token``."""


def show_bags(bags: Iterable[BagLike]) -> None:
    """Print a title as its bags: bars between them, colours for their kinds.

    Args:
        bags: The bags of the title, in order. A ``type`` attribute is used if there is one.
    """
    spans: list[tuple[str, str]] = []
    for i, bag in enumerate(bags):
        if i:
            spans.append(("│", "dim"))
        style = SOURCE_STYLES.get(bag.source, "")
        if bag.source == "lexicon":
            style = TYPE_STYLES.get(getattr(bag, "type", None) or "", style)
        spans.append((bag.text, style))
    console.styled(spans)


def show_bag_legend() -> None:
    """Print the meaning of the colours of :func:`show_bags`; nothing if stdout has no colours."""
    if not console.has_colours():
        return
    from bagformer_cli.text.type_names import source_names

    sources = source_names()
    names = {
        SOURCE_STYLES["lexicon"]: sources["lexicon"],
        TYPE_STYLES["brand"]: tr("brand"),
        TYPE_STYLES["colour"]: tr("property"),
        TYPE_STYLES["audience"]: tr("for whom, when, where"),
        TYPE_STYLES["selling"]: tr("marketing word"),
        SOURCE_STYLES["pattern"]: sources["pattern"],
        SOURCE_STYLES["token"]: sources["token"],
    }
    spans = [(name, style) for style, name in names.items()]
    console.styled([part for span in spans for part in (("  ", ""), span)][1:])


def direction_names() -> dict[str, str]:
    """Return the two directions of a search as they are printed."""
    return {"text_to_image": tr("text → image"), "image_to_text": tr("image → text")}


def stage_name(stage: str) -> str:
    """Return a stage of an evaluation as it is printed: ``merged@50`` with its number."""
    names = {
        "before_training": tr("before training"),
        "recall": tr("recall"),
        "rerank": tr("rerank"),
        "merged": tr("merged"),
    }
    name, at, count = stage.partition("@")
    return names.get(name, name) + at + count


def show_recall(
    stages: Mapping[str, Mapping[str, Mapping[str, float]]], *, title: str | None = None
) -> None:
    """Print the recalls of an evaluation as a table, in percent.

    Args:
        stages: The ``"stages"`` of ``xmr eval --json``: stage (``recall``, ``rerank``,
            ``merged``) to direction (``text_to_image``, ``image_to_text``) to metric
            (``recall@1``, …, ``mean_recall``). The stage ``before_training`` may come first.
        title: A line above the table.
    """
    directions = direction_names()
    metrics = ("recall@1", "recall@5", "recall@10", "mean_recall")
    rows = [
        [
            directions[direction],
            stage_name(stage),
            *(found[direction].get(metric) for metric in metrics),
        ]
        for direction in directions
        for stage, found in stages.items()
        if direction in found
    ]
    columns = [tr("direction"), tr("stage"), "R@1", "R@5", "R@10", tr("mean recall")]
    console.table(columns, rows, title=title)


def warn_of_lexicon(lexicon: Any) -> None:
    """Print what a user should know about dictionaries: lines left out, words with two types."""
    for remark in lexicon.remarks:
        console.warn(remark)


def warn_of_photos(model: Path, warn: Callable[[str], None]) -> None:
    """Warn if a model has seen drawn images only; call it before other images are encoded."""
    from bagformer_cli.datasets import saw_drawn_pictures_only

    if saw_drawn_pictures_only(model):
        warn(
            tr(
                "This model was trained on the demo's drawn pictures and has never seen a photo: "
                "its results on photos say little. Train on photos: xmr train --dataset FOLDER"
            )
        )
