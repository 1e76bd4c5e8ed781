"""``xmr eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.messages import tr

app = App()


@app.command(
    name="eval",
    help=tr(
        "Measure recall over the full pool, text to image and image to text: of the fast scorer, "
        "of the slow scorer's rerank of the best K, and of the two added.\n\n"
        "    xmr eval --dataset muge\n\n"
        "    xmr eval --dataset muge --split test --submission predictions.jsonl"
    ),
)
def evaluate_command(
    dataset: Annotated[
        str, typer.Option(help=tr("A folder in MUGE form, or demo, or muge."))
    ] = "demo",
    split: Annotated[Literal["valid", "test", "train"], typer.Option()] = "valid",
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=tr("A model folder or run folder. Default: the newest run under runs/.")),
    ] = None,
    rerank: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=tr("How many of the best the slow scorer sees; 0: none. Default: the config's."),
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, help=tr("Merged = slow + beta x fast. Default: the config's.")),
    ] = None,
    products: Annotated[
        Path | None,
        typer.Option(
            help=tr("A TSV of image id and product: several images of one product count once.")
        ),
    ] = None,
    submission: Annotated[
        Path | None,
        typer.Option(help=tr("Write the official file: ten image ids for each query.")),
    ] = None,
    naming: Annotated[
        Literal["query", "text"] | None,
        typer.Option(
            help=tr(
                "Keys of the submission: query_id/item_ids or text_id/image_ids. "
                "Default: those of the dataset's files."
            ),
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, evaluate, print."""
    from bagformer_cli.api import load
    from bagformer_cli.data.datasets import ensure_store, resolve
    from bagformer_cli.evaluation.evaluate import evaluate
    from bagformer_cli.models.checkpoint import find_checkpoint

    with console.progress() as progress:
        # A dataset that is not here is said first; the demo set is drawn only for a model.
        folder = None if dataset == "demo" else resolve(dataset, progress=progress)
        place = find_checkpoint(checkpoint)
        folder = folder or resolve(dataset, progress=progress)
        model = load(place).model
        store = ensure_store(folder, model.titles, splits=[split], progress=progress)
        part = store.split(split)
        settings = model.config.evaluation
        if rerank is not None:
            settings.candidates = rerank
        if beta is not None:
            settings.beta = beta
        groups = None
        if products is not None:
            from bagformer_cli.evaluation.products import read_products

            groups = read_products(products, part.image_ids)
        found = evaluate(model, part, settings, groups=groups, progress=progress)
    report: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        **found.to_json(),
        "checkpoint": str(place),
    }
    report |= drawn_attributes(folder.path, part, found)
    if submission is not None:
        from bagformer_cli.data.muge import Query
        from bagformer_cli.evaluation.submission import write_submission

        ids_and_texts = zip(part.query_ids.tolist(), part.texts, strict=True)
        queries = [Query(number, text, ()) for number, text in ids_and_texts]
        write_submission(
            submission,
            queries,
            part.image_ids[found.best.positions],
            naming or folder.naming,
        )
        report["submission"] = str(submission)
    console.result(report, lambda: show_evaluation(report))


def drawn_attributes(folder: Path, part: Any, found: Any) -> dict[str, dict[str, float]]:
    """Of a drawn dataset: how often the first image has what the query names, in percent."""
    from bagformer_cli.data.demo.attributes import (
        FILE_NAME,
        accuracy_by_attribute,
        read_attributes,
    )

    if not (folder / FILE_NAME).is_file():
        return {}
    known = read_attributes(folder, part.name)
    first = part.image_ids[found.best.positions[:, 0]]
    shares = accuracy_by_attribute(
        [known.queries[query] for query in part.query_ids.tolist()],
        [known.images[image] for image in first.tolist()],
    )
    return {"attributes": {name: 100 * share for name, share in shares.items()}}


def show_evaluation(report: dict[str, Any]) -> None:
    """Print the recall table of a report, and what else it holds."""
    console.recall_table(
        report["stages"],
        title=tr(
            "{dataset} {split}: {queries} queries, {items} images; {checkpoint}",
            dataset=report["dataset"],
            split=report["split"],
            queries=report["n_queries"],
            items=report["n_items"],
            checkpoint=report["checkpoint"],
        ),
    )
    if report.get("attributes"):
        names = {
            "kind": tr("kind"),
            "colour": tr("colour"),
            "pattern": tr("pattern"),
            "part": tr("colour of a part"),
            "binding": tr("which has which"),
            "all": tr("everything"),
        }
        console.table(
            [tr("the first image is right in"), tr("percent of the queries that name it")],
            [[names.get(name, name), share] for name, share in report["attributes"].items()],
        )
    console.facts({name: f"{value:.1f} s" for name, value in report["seconds"].items()})
    if "submission" in report:
        console.say(tr("Submission written: {path}", path=report["submission"]))
