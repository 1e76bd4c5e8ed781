"""Compare the modes at equal total steps, with 4 to 32 vectors a side (``make equal-steps``).

A student is compared with its own architecture trained for as many steps as the whole chain that
made it, and ``inflate`` also with a ``base`` of as many vectors. All figures are of the demo's test
split, which nothing is chosen on. Trials that are finished are not repeated; interrupted ones are
resumed. The tables go between two marks of docs/methods.md.

    python docs/experiments/equal_steps.py --page docs/methods.md --plot docs/equal_steps.svg
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bagformer_cli.datasets import resolve
from bagformer_cli.evaluation.compare import Difference, t_interval
from interval_plot import IntervalRow, interval_plot
from region_trials import (
    FEW,
    MEAN,
    NCE,
    RESULT_COLUMNS,
    SLOWER,
    SMALL,
    SOFT,
    Method,
    Trials,
    prepare,
    result_cells,
)
from trials import format_difference, markdown_table, names_among, replace_section

VECTORS = (4, 8, 16, 32)


def modes_with(vectors: int) -> dict[str, Method]:
    """Return the methods that keep this many vectors a side.

    The encoder reads all tokens and all 32 regions; its first outputs are kept. ``inflate`` has as
    many code tokens as it keeps outputs, as in the paper.

    >>> list(modes_with(8))
    ['base 8', 'inflate 8 + 8', 'base 8, steps × 2', 'shrinktobase 8']
    """
    keep, base = f"model.keep={vectors}", f"base {vectors}"
    inflate = f"inflate {vectors} + {vectors}"
    return {
        base: Method("base", sets=(NCE, keep)),
        inflate: Method("inflate", sets=(NCE, keep, f"model.codes={vectors}")),
        f"{base}, steps × 2": Method("base", sets=(NCE, keep), stages=2),
        f"shrinktobase {vectors}": Method("shrinktobase", inflate, (*SOFT, keep)),
    }


CAPTIONER = "captioner, steps × 2"
ALIGNMENT = "alignment, steps × 2"
FAST = (NCE, SLOWER)
MODES: dict[str, Method] = {
    "fast": Method("fast", sets=FAST),
    "fast, steps × 3": Method("fast", sets=FAST, stages=3),
    "fast, steps × 5": Method("fast", sets=FAST, stages=5),
    **{name: method for count in VECTORS for name, method in modes_with(count).items()},
    "base 4, steps × 3": Method("base", sets=(NCE, "model.keep=4"), stages=3),
    "shrinktobase 4 of 32": Method("shrinktobase", "base 32, steps × 2", (*SOFT, "model.keep=4")),
    "shrinktofast of 4": Method("shrinktofast", "shrinktobase 4", SOFT),
    "shrinktofast of 32": Method("shrinktofast", "base 32, steps × 2", SOFT),
    CAPTIONER: Method("captioner", sets=("model.cross.layers=1",), stages=2),
    "fast + captioner rerank": Method(teacher="fast", cross_encoder=CAPTIONER),
    "fast, steps × 3 + captioner rerank": Method(
        teacher="fast, steps × 3", cross_encoder=CAPTIONER
    ),
    "slowtofast, steps × 3": Method("slowtofast", CAPTIONER, (*FEW, SLOWER), stages=3),
    ALIGNMENT: Method("alignment_triplet", sets=(NCE, MEAN), stages=2),
    "matching of alignment": Method("matching_distill_finetune", ALIGNMENT, (*SMALL, *SOFT)),
    "alignment and matching, steps × 3": Method(
        "alignment_and_matching_distill",
        sets=(NCE, MEAN, *SMALL, *SOFT, "distill.activate_distillation_after=0.25"),
        stages=3,
    ),
}
CLAIMED = (
    ("inflate 4 + 4", "base 4"),
    ("shrinktobase 4", "base 4, steps × 2"),
    ("shrinktofast of 4", "fast, steps × 3"),
    ("shrinktofast of 32", "fast, steps × 3"),
    ("fast, steps × 3 + captioner rerank", "fast, steps × 3"),
    ("shrinktobase 4 of 32", "base 4, steps × 3"),
    ("slowtofast, steps × 3", "fast, steps × 5"),
    ("matching of alignment", "fast, steps × 3"),
)
"""(A, B): A is better than B, as written down before the runs (docs/log.md)."""
COMPARED = (
    *CLAIMED,
    ("fast + captioner rerank", "fast"),
    ("fast + captioner rerank", "fast, steps × 3"),
    ("fast, steps × 3 + captioner rerank", "fast, steps × 5"),
    ("slowtofast, steps × 3", "fast, steps × 3"),
    ("alignment and matching, steps × 3", "fast, steps × 3"),
    (ALIGNMENT, "base 32, steps × 2"),
    ("shrinktobase 4 of 32", "base 4, steps × 2"),
    ("shrinktobase 4 of 32", "base 4"),
    ("inflate 4 + 4", "base 8"),
    *((f"inflate {n} + {n}", f"base {n}") for n in VECTORS[1:]),
    *((f"inflate {n} + {n}", f"base {2 * n}") for n in VECTORS[1:-1]),
    *((f"shrinktobase {n}", f"base {n}, steps × 2") for n in VECTORS[1:]),
    *((f"shrinktobase {n}", f"base {n}") for n in VECTORS),
    *((f"base {2 * n}", f"base {n}") for n in VECTORS[:-1]),
)
SHOWN = ("text_to_image", "image_to_text", "cpu_seconds")
# Trials in order of what is claimed, all seeds of a phase before the next phase.
PHASES = (
    [*modes_with(4), "base 8"],
    ["shrinktofast of 4", "fast, steps × 3", "base 32, steps × 2", "shrinktofast of 32"],
    [CAPTIONER, "fast, steps × 3 + captioner rerank", "fast", "fast + captioner rerank"],
    ["shrinktobase 4 of 32", "base 4, steps × 3"],
    ["slowtofast, steps × 3", "fast, steps × 5"],
    [ALIGNMENT, "matching of alignment", "alignment and matching, steps × 3"],
    [name for count in VECTORS[1:] for name in modes_with(count)],
)


def results_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table with a row for each method that has at least one result."""
    header = [*RESULT_COLUMNS, "steps of the chain", "CPU s of the chain"]
    rows = []
    for name in MODES:
        finished = trials.finished([name], seeds)
        if finished and name != CAPTIONER:  # its fast scorer is not trained
            steps, cpu = chain_price(trials, name, finished)
            cells = result_cells(name, trials.results(name, finished))
            rows.append([*cells, f"{steps:.0f}", f"{cpu:.0f}"])
    return markdown_table(header, rows)


def chain_price(trials: Trials, name: str, seeds: Sequence[int]) -> tuple[float, float]:
    """Return the steps and the CPU seconds (medians over seeds) of a method and its teachers."""
    prices = [trials.price(name, seed) for seed in seeds]
    return (
        statistics.median(steps for steps, _ in prices),
        statistics.median(cpu for _, cpu in prices),
    )


@dataclass(frozen=True)
class Comparison:
    """Two methods on the seeds that both have.

    Attributes:
        names: A and B.
        seeds: The seeds, two or more.
        text_to_image: A − B over these seeds.
        image_to_text: The same.
    """

    names: tuple[str, str]
    seeds: list[int]
    text_to_image: Difference
    image_to_text: Difference


def comparisons(trials: Trials, seeds: Sequence[int]) -> list[Comparison]:
    """Compare each pair that has two seeds or more, by paired t-intervals over seeds."""
    found = []
    for names in COMPARED:
        common = trials.finished(names, seeds)
        if len(common) >= 2:
            sides = [trials.results(name, common) for name in names]
            gaps = (
                t_interval(*([float(one[direction]) for one in side] for side in sides))
                for direction in ("text_to_image", "image_to_text")
            )
            found.append(Comparison(names, common, *gaps))
    return found


def differences_table(trials: Trials, compared: Sequence[Comparison]) -> list[str]:
    """Return a Markdown table of paired differences with 95 % t-intervals over seeds."""
    header = [
        "A",
        "B",
        "steps of the chain (A / B)",
        "CPU s of the chain (A / B)",
        "seeds",
        "A − B (95 % t-interval), text to image",
        "supported",
        "A − B, image to text",
    ]
    rows = []
    for one in compared:
        prices = [chain_price(trials, name, one.seeds) for name in one.names]
        rows.append(
            [
                *(f"**{name}**" if one.names in CLAIMED else name for name in one.names),
                *(" / ".join(f"{price[which]:.0f}" for price in prices) for which in (0, 1)),
                str(len(one.seeds)),
                format_difference(one.text_to_image),
                "yes" if one.text_to_image.supported else "**no**",
                format_difference(one.image_to_text),
            ]
        )
    return markdown_table(header, rows)


def plot(compared: Sequence[Comparison], path: Path) -> None:
    """Draw the differences from text to image, as an SVG file."""
    rows = [IntervalRow(" − ".join(one.names), [one.text_to_image]) for one in compared]
    interval_plot(
        rows,
        [""],
        path,
        "Method − method: filled points lie above 0 with their whole interval",
        "points of text-to-image mean recall, 95 % t-interval over seeds",
    )


def main() -> None:
    """Run the trials that are missing, phase by phase, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/equal-steps"), help="output folder")
    parser.add_argument("--dataset", default="demo", help="dataset name or folder")
    parser.add_argument("--backbone", type=Path, default=Path("runs/demo"), help="makes regions")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of a stage")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by ,")
    parser.add_argument("--split", default="test", choices=("test", "valid"), help="measured split")
    parser.add_argument(
        "--methods", type=names_among(MODES), metavar="NAMES",
        help="names separated by semicolons (default: all, phase by phase)",
    )  # fmt: skip
    parser.add_argument("--tables", action="store_true", help="train nothing, write the tables")
    parser.add_argument("--page", type=Path, help="page that gets the tables")
    parser.add_argument("--plot", type=Path, help="SVG file of the differences")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    trials = Trials(options.out, data, MODES, options.steps, split=options.split)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    phases = [options.methods] if options.methods else PHASES
    if not options.tables:
        prepare(data, options.backbone)
        for phase in phases:
            for seed in seeds:
                for name in phase:
                    found = trials.run(name, seed)
                    print(name, seed, *(f"{found[key]:.2f}" for key in SHOWN), flush=True)
    compared = comparisons(trials, seeds)
    lines = [*results_table(trials, seeds), "", *differences_table(trials, compared)]
    if options.page is not None:
        replace_section(options.page, "equal_steps", lines)
    if options.plot is not None:
        plot(compared, options.plot)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
