"""Account for every tensor of a checkpoint that is converted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bagformer_cli.errors import CheckpointError
from bagformer_cli.messages import tr

Shape = tuple[int, ...]


@dataclass
class TensorReport:
    """The account of every tensor of a checkpoint, by the names that the checkpoint has.

    Attributes:
        loaded: Tensors that became weights of the model.
        renamed: Tensors with another name than expected, and the expected name. Older spellings
            (``LayerNorm.gamma``) are loaded; those in ``guessed`` are not.
        guessed: The ``renamed`` ones that only their shape and a similar name identify.
        resized: Tensors that were loaded in another shape, and both sizes.
        ignored: Tensors that the model does not need, by the reason.
        missing: Names that were expected and are not there.
        misshapen: Tensors of another shape: the shape found, and the one expected.
        unknown: Tensors that no weight needs and no known reason explains.
        whole: Tensors of whole numbers (quantised), of which a weight cannot be made.
    """

    loaded: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    guessed: set[str] = field(default_factory=set)
    resized: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every weight of the model was found and every tensor is explained."""
        return not (self.guessed or self.missing or self.misshapen or self.unknown or self.whole)

    @property
    def total(self) -> int:
        """Number of tensors of the checkpoint."""
        ignored = sum(len(names) for names in self.ignored.values())
        used = len(self.loaded) + len(self.renamed) + len(self.resized)
        return used + ignored + len(self.misshapen) + len(self.unknown) + len(self.whole)

    def rows(self) -> list[tuple[str, int, list[str]]]:
        """List the kinds of tensors that occur: name, number, and a line for each tensor.

        Loaded tensors have no lines: their names are those that were expected.
        """
        kinds: list[tuple[str, int, list[str]]] = [(tr("loaded"), len(self.loaded), [])]
        renamed = [f"{found} → {wanted}" for found, wanted in self.renamed.items()]
        kinds.append((tr("renamed"), len(renamed), renamed))
        resized = [f"{name}: {sizes}" for name, sizes in self.resized.items()]
        kinds.append((tr("resized"), len(resized), resized))
        for reason, names in self.ignored.items():
            kinds.append((tr("ignored: {reason}", reason=reason), len(names), names))
        kinds.append((tr("missing"), len(self.missing), self.missing))
        shapes = [
            tr("{name}: {found}, expected {expected}", name=name, found=list(found),
               expected=list(expected))
            for name, (found, expected) in self.misshapen.items()
        ]  # fmt: skip
        kinds.append((tr("another shape"), len(shapes), shapes))
        kinds.append((tr("unknown"), len(self.unknown), self.unknown))
        kinds.append((tr("whole numbers"), len(self.whole), self.whole))
        return [kind for kind in kinds if kind[1]]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "tensors": self.total,
            "loaded": len(self.loaded),
            "renamed": [
                {"found": found, "expected": wanted, "loaded": found not in self.guessed}
                for found, wanted in self.renamed.items()
            ],
            "resized": [{"name": name, "sizes": sizes} for name, sizes in self.resized.items()],
            "ignored": [
                {"reason": reason, "number": len(names), "names": names}
                for reason, names in self.ignored.items()
            ],
            "missing": self.missing,
            "another_shape": [
                {"name": name, "found": list(found), "expected": list(expected)}
                for name, (found, expected) in self.misshapen.items()
            ],
            "unknown": self.unknown,
            "whole_numbers": self.whole,
        }


class ConversionError(CheckpointError):
    """A checkpoint that cannot be converted completely.

    Args:
        message: See :class:`XmrError`.
        report: The account of its tensors.
        where: The checkpoint.
    """

    def __init__(self, message: str, report: TensorReport, where: object) -> None:
        guessed = [f"{name} → {report.renamed[name]}" for name in sorted(report.guessed)]
        shapes = [f"{n} {list(is_)} / {list(to)}" for n, (is_, to) in report.misshapen.items()]
        kinds = (
            (tr("{n} renamed", n=len(guessed)), guessed),
            (tr("{n} missing", n=len(report.missing)), report.missing),
            (tr("{n} of another shape", n=len(shapes)), shapes),
            (tr("{n} unknown", n=len(report.unknown)), report.unknown),
            (tr("{n} of whole numbers (quantised)", n=len(report.whole)), report.whole),
        )
        lines = [", ".join(count for count, names in kinds if names)]
        for count, names in kinds:
            lines += [tr("{place}: {message}", place=count, message=_first(names))] * bool(names)
        super().__init__(message, where=str(where), found="\n".join(lines))
        self.report = report


def _first(names: list[str], most: int = 3) -> str:
    """Name the first of some tensors and count the others."""
    more = tr("… and {n} more", n=len(names) - most)
    return "; ".join([*names[:most], *[more] * (len(names) > most)])
