"""``xmr score``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint, Runtime
from bagformer_cli.cli.views import show_bag_legend, show_bags, warn_of_photos
from bagformer_cli.errors import InputError, shell_word
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.models.score_explanation import ScorePart

app = App()

BELOW = 3
"""Exit code if a title does not reach ``--threshold``: neither success nor an error."""


@app.command(
    help=tr(
        "Score an image against titles in both directions, and show the titles' bags.\n\n"
        "text → image is a mean over the title's bags: each counts its highest cosine with any "
        "patch of the image. image → text is a mean over the patches: each counts its highest "
        "cosine with any bag. Both are from −1 to 1 and do not grow with the title's length. A "
        "model trained with one score for both directions (model.pooling) has that score in both."
        "\n\n"
        "After `xmr eval --calibrate`, probability says how likely an image with this text → image "
        "score is a match, if a search put it among its first 10 results. --threshold compares it, "
        "and the exit code is 0 if every title reaches it and 3 if one does not.\n\n"
        "--explain shows the sums, and the patch that each bag fits best. Patches attend to each "
        "other in the encoder, so the best patch need not lie on the object itself. --json has "
        "sums (text_to_image) and means (text_to_image_mean).\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' '蓝色牛仔裤'\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' --threshold 0.5 && echo match\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' --explain\n\n"
        "    xmr score image.jpg '红色碎花连衣裙' --explain --output explained.html"
    ),
    apart=[("--threshold", "--threshold-score")],
)
def score(
    image: Annotated[Path, typer.Argument(help=tr("An image file."))],
    titles: Annotated[list[str], typer.Argument(help=tr("One or more titles."))],
    checkpoint: Checkpoint = None,
    runtime: Runtime = "torch",
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help=tr(
                "Show each bag's part of the score, and the patch of the image that it fits best."
            ),
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help=tr("With --explain: write heat maps to an HTML page or a PNG image."),
            show_default=False,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=tr(
                "Exit with 3 if a title's probability is lower. Needs a calibrated model; 0 to 1."
            ),
            show_default=False,
        ),
    ] = None,
    threshold_score: Annotated[
        float | None,
        typer.Option(
            min=-1,
            max=1,
            help=tr("Exit with 3 if a title's mean text → image score is lower; −1 to 1."),
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, score, print."""
    import numpy as np

    from bagformer_cli.data.images import decode

    if output is not None:
        _check_output(output, image, explain)
    elif explain:
        _check_titles(titles)
    decode(image)  # first, so that a wrong path is reported before torch is imported
    from bagformer_cli.datasets import is_drawn_image
    from bagformer_cli.evaluation.metrics import require_numbers
    from bagformer_cli.models.runs import find_checkpoint
    from bagformer_cli.pages.explanation import write_explanation
    from bagformer_cli.runtime.folder import runtime_folder

    with bars.progress() as progress:
        model = find_checkpoint(checkpoint, progress=progress)
        place = runtime_folder(model, runtime)
        retriever: Any = _load(place, explain)
        calibration = retriever.calibration(progress)
    if threshold is not None and calibration is None:
        raise no_calibration(place, f"--threshold {threshold:g}")
    scores = retriever.score(retriever.encode_images([image]), retriever.encode_texts(titles))
    retriever.titles.warn_of_cut(console.warn)
    if not is_drawn_image(image):
        warn_of_photos(model, console.warn)
    require_numbers(np.asarray(scores.t2i))
    report: dict[str, Any] = {
        "image": str(image),
        "titles": titles,
        "text_to_image": scores.t2i[:, 0].tolist(),
        "image_to_text": scores.i2t[0].tolist(),
        "text_to_image_mean": scores.t2i_mean[:, 0].tolist(),
        "image_to_text_mean": scores.i2t_mean[0].tolist(),
        "probability": None,
        "pooling": retriever.scoring.pooling,
        "bags": [retriever.bags(title) for title in titles],
    }
    if calibration is not None:
        curve = calibration.curves["text_to_image"]
        report["probability"] = curve.probability(report["text_to_image_mean"]).tolist()
    reached = _reached(report, threshold, threshold_score)
    if reached is not None:
        report["reached"] = reached
    if explain:
        found = retriever.explain(image, titles)
        report["explained"] = [[_part_to_json(part) for part in one.parts] for one in found]
        if output is not None:
            write_explanation(output, image.read_bytes(), found)
            report["output"] = str(output)
    report["checkpoint"] = str(place)
    console.result(report, lambda: show_scores(report))
    if reached is not None and not all(reached):
        raise typer.Exit(BELOW)


def _reached(
    report: dict[str, Any], threshold: float | None, threshold_score: float | None
) -> list[bool] | None:
    """Say of each title whether it reaches the threshold; None: there is no threshold."""
    if threshold is not None:
        return [value >= threshold for value in report["probability"]]
    if threshold_score is not None:
        return [value >= threshold_score for value in report["text_to_image_mean"]]
    return None


def no_calibration(folder: Path, option: str) -> InputError:
    """Make the error for an option that needs a probability where the model gives none."""
    return InputError(
        tr("This model has no calibration that fits it, so its scores have no probability."),
        where=folder,
        found=option,
        hint=tr("Fit one with `xmr eval --calibrate`, or use --threshold-score."),
    )


def _check_output(output: Path, image: Path, explain: bool) -> None:
    """Raise InputError if the heat maps cannot be written."""
    from bagformer_cli.outputs import check_output
    from bagformer_cli.pages.explanation import require_explanation_file

    if not explain:
        raise InputError(
            tr("--output writes the heat maps of --explain."),
            found=f"--output {output}",
            hint=tr("Add --explain."),
        )
    require_explanation_file(output)
    check_output(output, [image])


def _check_titles(titles: list[str]) -> None:
    """Raise InputError if a title looks like the file that the explanation is to be written to."""
    files = [title for title in titles if title.lower().endswith((".html", ".htm", ".png"))]
    if files:
        raise InputError(
            tr("This title looks like a file name."),
            found=files[0],
            hint=tr(
                "Write the heat maps with --explain --output {path}", path=shell_word(files[0])
            ),
        )


def _load(folder: Path, explain: bool) -> Any:
    """Load a model folder, or without torch an exported model."""
    from bagformer_cli.runtime.folder import is_exported

    if not is_exported(folder):
        from bagformer_cli.api import load

        return load(folder)
    if explain:
        raise InputError(
            tr("An exported model cannot explain its scores."),
            where=folder,
            hint=tr("Leave out --explain, or name the model folder and leave out --runtime onnx."),
        )
    from bagformer_cli.runtime import load as load_exported

    return load_exported(folder)


def _part_to_json(part: ScorePart) -> dict[str, Any]:
    """Describe a part of a title and its best patch; ``patch`` is null for the whole image."""
    cell = part.cell
    patch = None if cell is None else {**asdict(cell), "x": cell.x, "y": cell.y}
    return {"text": part.text, "score": part.score, "share": part.share, "patch": patch}


def show_scores(report: dict[str, Any]) -> None:
    """Print the mean scores as a table, then each title's bags, or the parts of its score."""
    columns = {
        tr("title"): report["titles"],
        tr("text → image"): report["text_to_image_mean"],
        tr("image → text"): report["image_to_text_mean"],
    }
    if report.get("probability") is not None:
        columns[tr("probability, %")] = [100 * value for value in report["probability"]]
    if "reached" in report:
        columns[tr("reaches the threshold")] = report["reached"]
    rows = list(zip(*columns.values(), strict=True))
    console.table(
        list(columns),
        rows,
        title=tr("{message} ({details})", message=report["image"], details=report["checkpoint"]),
        best=[1] if len(rows) > 1 else [],
    )
    console.say(_meaning(report["pooling"]))
    if report.get("probability") is not None:
        console.say(
            tr("Probability: that an image among the first 10 results of a search is a match.")
        )
    if "explained" in report:
        for number, title in enumerate(report["titles"]):
            _show_parts(title, report, number)
        if "output" in report:
            console.say(tr("Heat maps written: {path}", path=report["output"]))
        return
    for bags in report["bags"]:
        show_bags(bags)
    show_bag_legend()


def _meaning(pooling: str) -> str:
    """Say what the two scores are, by the model's pooling."""
    one_score = {
        "text": tr("One score for both directions: mean best cosine of a title's bags, −1 to 1."),
        "image": tr("One score for both directions: mean best cosine of the patches, −1 to 1."),
        "both": tr("One score for both directions: mean best cosine of bags and patches, −1 to 1."),
        "mean": tr(
            "One score for both directions: mean cosine of all bags with all patches, −1 to 1."
        ),
    }
    each = tr("Mean best cosine of a title's bags, and of the image's patches: −1 to 1.")
    return one_score.get(pooling, each)


def _show_parts(title: str, report: dict[str, Any], number: int) -> None:
    """Print the parts of a title's score, and their sum."""
    parts = report["explained"][number]
    console.say()
    console.table(
        [tr("bag"), tr("part of the score"), tr("share, %"), tr("best patch")],
        [
            [
                tr("whole title") if part["text"] is None else part["text"],
                part["score"],
                100 * part["share"],
                _where(part["patch"]),
            ]
            for part in parts
        ],
        title=title,
    )
    if report["pooling"] != "each":
        total = sum(part["score"] for part in parts)
        console.say(tr("Sum of {n} parts: {total}.", n=len(parts), total=f"{total:.2f}"))
        return
    console.say(
        tr(
            "text → image: sum {t2i} of {n} parts. image → text: sum {i2t}, of all patches.",
            t2i=f"{report['text_to_image'][number]:.2f}",
            n=len(parts),
            i2t=f"{report['image_to_text'][number]:.2f}",
        )
    )


def _where(patch: dict[str, Any] | None) -> str:
    if patch is None:
        return tr("whole image")
    return tr(
        "row {row}/{rows}, column {column}/{columns} (left {x} %, top {y} %)",
        **{**patch, "x": f"{patch['x']:.0f}", "y": f"{patch['y']:.0f}"},
    )
