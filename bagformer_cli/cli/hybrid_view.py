"""Options and results of a search that is fused with one by words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagformer_cli.cli import console
from bagformer_cli.cli.formatting import format_value
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.results import Results


def require_fusion(fusion: str, lexical_weight: float | None, synonyms: Path | None) -> None:
    """Raise InputError if an option is given that the kind of fusion leaves without effect."""
    if lexical_weight is not None and fusion != "weighted":
        raise InputError(
            tr("--lexical-weight has an effect with --fusion weighted only."),
            found=f"--lexical-weight {lexical_weight:g} --fusion {fusion}",
            hint=tr("Add --fusion weighted, or leave out --lexical-weight."),
        )
    if synonyms is not None and fusion == "none":
        raise InputError(
            tr("--synonyms are for the words of a search, and --fusion none has none."),
            found=f"--synonyms {synonyms}",
            hint=tr("Add --fusion rrf, or leave out --synonyms."),
        )


def suggestion_of(results: Results) -> dict[str, str]:
    """Return the suggestion of a search for the report, if there is one."""
    return {} if results.suggestion is None else {"suggestion": results.suggestion}


def show_suggestion(one: dict[str, Any]) -> None:
    """Say which words of the index may have been meant."""
    if "suggestion" in one:
        console.info(tr("No title has these words. Did you mean: {query}", query=one["suggestion"]))


def part_facts(hit: dict[str, Any]) -> dict[str, str]:
    """Return the score and the rank of each part of a fused result, to be shown below it."""
    facts = {tr("vectors"): _place(hit["mean"], hit["fast_rank"])}
    if hit["lexical"] is not None:
        facts[tr("words")] = _place(hit["lexical"], hit["lexical_rank"])
    return facts


def _place(score: float, rank: int | None) -> str:
    shown = format_value(score)
    return shown if rank is None else tr("{score} (rank {rank})", score=shown, rank=rank)
