"""Distil a fast student: one vector for each side, taught by the scores of a bag-wise model.

    python examples/distil_fast_student.py [STEPS]

Needs runs/example, from train_and_evaluate.py. The student scores a title and an image by one
dot product, where the teacher compares every bag with every patch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bagformer_cli.datasets import ensure_store, resolve
from bagformer_cli.evaluation.compare import compare_folders
from bagformer_cli.text.from_config import build_titles
from bagformer_cli.training.job import new_job, train


def main() -> None:
    """Train the student and compare it."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    job = new_job(
        "demo",
        [f"training.max_steps={steps}"],
        mode="shrinktofast",  # configs/modes/ has the others
        teacher="runs/example/best",
        output_dir=Path("runs/student"),
    )
    dataset = resolve("demo")
    (result,) = train(job, ensure_store(dataset, build_titles(job.config)))

    folders = [Path("runs/example/best"), result.run / "best"]
    for folder, row in zip(folders, compare_folders(folders, dataset, "valid"), strict=True):
        print(
            f"{folder.parent.name}: mean recall {row['text_to_image']['mean_recall']:.1f} %, "
            f"{row['image_bytes']:,.0f} bytes an image, {row['query_ms']:.2f} ms a query"
        )


if __name__ == "__main__":
    main()
