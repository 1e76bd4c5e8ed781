"""Compare the training modes on the demo set, several seeds each (``make methods``).

All methods read the same pre-extracted regions (grid cells of one trained backbone, where the
papers use a detector's boxes) and differ in their mode alone. Trials that are finished are not
repeated; interrupted ones are resumed. ``--page`` replaces the tables of docs/methods.md.

    xmr demo                        # trains the backbone, runs/demo
    python docs/experiments/methods.py --backbone runs/demo --page docs/methods.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

from bagformer_cli.datasets import resolve
from region_trials import (
    CODES,
    FEW,
    MEAN,
    NCE,
    RESULT_COLUMNS,
    SLOWER,
    SMALL,
    SOFT,
    Method,
    Trials,
    add_training_options,
    prepare,
    result_cells,
)
from trials import add_names, format_difference, markdown_table, paired_difference, replace_section

METHODS: dict[str, Method] = {
    "fast": Method("fast", sets=(NCE, SLOWER)),
    "base": Method("base", sets=(NCE,)),
    "inflate": Method("inflate", sets=(CODES, NCE)),
    "shrinktobase": Method("shrinktobase", "inflate", SOFT),
    "shrinktofast": Method("shrinktofast", "shrinktobase", SOFT),
    "shrinktofast, from scratch": Method(
        "shrinktofast", "shrinktobase", (*SOFT, "distill.start_from_teacher=false")
    ),
    "fast, power hinge": Method("fast", sets=(SLOWER,)),
    "base, power hinge": Method("base"),
    "base, power hinge without j = i": Method("base", sets=("objectives.include_diagonal=false",)),
    "inflate, power hinge": Method("inflate", sets=(CODES,)),
    "fast, bag of words": Method(
        "dualnce", sets=("text.encoder=words", "model.shared=null", SLOWER)
    ),
    "captioner": Method("captioner", sets=("model.cross.layers=1",)),
    "fast + captioner rerank": Method(teacher="fast", cross_encoder="captioner"),
    "slowtofast": Method("slowtofast", "captioner", (*FEW, SLOWER)),
    "alignment": Method("alignment_triplet", sets=(NCE, MEAN)),
    "alignment, triplet": Method("alignment_triplet"),
    "alignment, triplet after NCE": Method("alignment_triplet", "alignment", (SLOWER,)),
    "matching, frozen backbone": Method("matching_triplet_finetune", "alignment", (NCE, *SMALL)),
    "matching, frozen backbone, distilled": Method(
        "matching_distill_finetune", "alignment", (*SMALL, *SOFT)
    ),
    "matching, end to end": Method("matching_triplet_e2e", sets=(NCE, *SMALL)),
    "alignment and matching": Method(
        "alignment_and_matching_distill",
        sets=(NCE, MEAN, *SMALL, *SOFT, "distill.activate_distillation_after=0.25"),
    ),
}
# (A, B): a paper reports that A is better than B.
ORDERINGS = (
    ("inflate", "base"),
    ("base", "fast"),
    ("shrinktobase", "base"),
    ("shrinktofast", "fast"),
    ("shrinktofast, from scratch", "fast"),
    ("inflate, power hinge", "base, power hinge"),
    ("base, power hinge", "base, power hinge without j = i"),
    ("fast + captioner rerank", "fast"),
    ("slowtofast", "fast"),
    ("matching, frozen backbone, distilled", "matching, frozen backbone"),
    ("alignment and matching", "matching, end to end"),
    ("alignment", "alignment, triplet"),
)


def results_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table with a row for each method that has at least one result."""
    found = {name: trials.results(name, seeds) for name in METHODS}
    rows = [result_cells(name, results) for name, results in found.items() if results]
    return markdown_table(RESULT_COLUMNS, rows)


def orderings_table(trials: Trials, seeds: Sequence[int]) -> list[str]:
    """Return a Markdown table of the papers' orderings, over the seeds that both methods have."""
    rows = []
    for a, b in ORDERINGS:
        common = trials.finished((a, b), seeds)
        if not common:
            continue
        difference = paired_difference(*(trials.results(name, common) for name in (a, b)))
        supported = "yes" if difference.supported else "**no**"
        rows.append([a, b, str(len(common)), format_difference(difference), supported])
    header = ["method A", "method B", "seeds", "A − B (95 % interval)", "supported"]
    return markdown_table(header, rows)


def main() -> None:
    """Run the trials that are missing, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_training_options(parser)
    parser.add_argument(
        "--seconds", type=float,
        help="also train each method for this many CPU seconds, in a second pair of tables",
    )  # fmt: skip
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: 0,1,2)")
    add_names(parser, "--methods", METHODS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = resolve(options.dataset).path
    prepare(data, options.backbone)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    budgets = {"Equal steps:": Trials(options.out, data, METHODS, options.steps)}
    if options.seconds is not None:
        heading = f"Equal CPU time ({options.seconds:g} s):"
        budgets[heading] = Trials(options.out, data, METHODS, options.steps, options.seconds)
    lines: list[str] = []
    for heading, trials in budgets.items():
        for seed in seeds:
            for name in options.methods:
                found = trials.run(name, seed)
                print(name, seed, *(f"{found[k]:.2f}" for k in ("text_to_image", "cpu_seconds")))
        tables = [*results_table(trials, seeds), "", *orderings_table(trials, seeds)]
        lines += [heading, "", *tables, ""]
    lines.pop()
    if options.page is not None:
        replace_section(options.page, "methods", lines)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
