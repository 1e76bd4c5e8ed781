"""``xmr eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bagformer_cli.cli import bars, console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.cli.options import Checkpoint, Dataset
from bagformer_cli.cli.views import show_recall
from bagformer_cli.messages import tr

app = App()


@app.command(
    name="eval",
    help=tr(
        "Measure recall over the full pool, text to image and image to text: of the fast scorer, "
        "of the slow scorer's rerank of the best K, and of the two added.\n\n"
        "    xmr eval --dataset muge\n\n"
        "    xmr eval --checkpoint runs/fast --slow runs/captioner --rerank 50,100 --tune-beta\n\n"
        "    xmr eval --dataset muge --split test --submission predictions.jsonl"
    ),
)
def evaluate_command(
    dataset: Dataset = "demo",
    split: Annotated[Literal["valid", "test", "train"], typer.Option()] = "valid",
    checkpoint: Checkpoint = None,
    slow: Annotated[
        Path | None,
        typer.Option(
            help=tr("Another model folder or run folder, whose slow scorer reranks. Default: own.")
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="K[,K]",
            help=tr("How many of the best the slow scorer sees; 0: none. Default: the config's."),
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(min=0, help=tr("Merged = slow + beta x fast. Default: the config's.")),
    ] = None,
    tune_beta: Annotated[
        bool,
        typer.Option(
            "--tune-beta",
            help=tr("Choose beta on the validation split and keep it in the model folder."),
        ),
    ] = False,
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="KEYS",
            help=tr(
                "Only these images and the queries that they answer: an id a line; with names "
                "behind a tab, the mean over the named subsets."
            ),
        ),
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
    from bagformer_cli.datasets import ensure_store, resolve
    from bagformer_cli.evaluation.attributes import first_image_accuracy
    from bagformer_cli.evaluation.evaluate import Slow, evaluate
    from bagformer_cli.evaluation.subsets import read_subsets
    from bagformer_cli.models.build import require_cross_encoder
    from bagformer_cli.models.checkpoint import check_model_folder, find_checkpoint

    counts = _counts(rerank)
    with bars.progress() as progress:
        # A dataset that is not here is said first; the demo set is drawn only for a model.
        folder = None if dataset == "demo" else resolve(dataset, progress=progress)
        place = find_checkpoint(checkpoint)
        for model_folder in (place, *([] if slow is None else [find_checkpoint(slow)])):
            check_model_folder(model_folder)
        folder = folder or resolve(dataset, progress=progress)
        model = load(place).model
        judge = None if slow is None else _slow_model(slow)
        if judge is None and any(counts or ()):
            require_cross_encoder(model, place)

        def parts(name: str) -> tuple[Any, Any]:
            """A split as the fast and as the other slow model read it."""
            store = ensure_store(folder, model.titles, splits=[name], progress=progress)
            own = store.split(name)
            if judge is None:
                return own, None
            other = ensure_store(folder, judge.titles, splits=[name], progress=progress)
            return own, Slow(judge, other.split(name))

        part, other = parts(split)
        settings = model.config.evaluation
        key = None if slow is None else weights_key(find_checkpoint(slow))
        if key is not None:
            settings.beta = settings.slow_betas.get(key, settings.beta)
        if beta is not None:
            settings.beta = beta
        if tune_beta:
            tuned = evaluate(
                model,
                *(parts("valid")[:1]),
                settings,
                rerank=counts or True,
                slow=parts("valid")[1],
                tune_beta=True,
                progress=progress,
            )
            if tuned.beta is None:
                raise _nothing_to_tune(place)
            settings.beta = tuned.beta
            keep_beta(place, tuned.beta, key)
            console.info(tr("beta {beta}, chosen on validation", beta=f"{tuned.beta:g}"))
        groups = None
        if products is not None:
            from bagformer_cli.evaluation.products import read_products

            groups = read_products(products, part.image_ids)
        subsets = {"": None} if items is None else read_subsets(items, part)
        all_found = {
            name: evaluate(
                model,
                part,
                settings,
                rerank=True if counts is None else counts,
                groups=groups,
                slow=other,
                subset=subset,
                progress=progress,
            )
            for name, subset in subsets.items()
        }
    found = next(iter(all_found.values()))
    report: dict[str, Any] = {
        "dataset": dataset,
        "split": split,
        **found.to_json(),
        "checkpoint": str(place),
    }
    if slow is not None:
        report["slow"] = str(find_checkpoint(slow))
    if items is not None:
        every = {name: one.to_json() for name, one in all_found.items()}
        report |= {"stages": _mean_stages([one["stages"] for one in every.values()])}
        report["subsets"] = every
    else:
        if accuracy := first_image_accuracy(folder.path, part, found.best.positions[:, 0]):
            report["attributes"] = accuracy
    if submission is not None and items is None:
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


def weights_key(folder: Path) -> str:
    """How a slow scorer of another folder is called in ``evaluation.slow_betas``."""
    from bagformer_cli.files import sha256_of
    from bagformer_cli.models.checkpoint import WEIGHTS, check_model_folder

    check_model_folder(folder)
    return sha256_of(folder / WEIGHTS)[:16]


def keep_beta(folder: Path, beta: float, key: str | None) -> None:
    """Write beta into a model folder's config: its own, or that for another slow scorer."""
    from bagformer_cli.config import load_config, save_config

    path = folder / "config.yaml"
    config = load_config(path)
    if key is None:
        config.evaluation.beta = beta
    else:
        config.evaluation.slow_betas = {**config.evaluation.slow_betas, key: beta}
    save_config(config, path, path)


def _slow_model(given: Path) -> Any:
    from bagformer_cli.api import load
    from bagformer_cli.models.build import require_cross_encoder
    from bagformer_cli.models.checkpoint import find_checkpoint

    place = find_checkpoint(given)
    model = load(place).model
    require_cross_encoder(model, place)
    return model


def _nothing_to_tune(place: Path) -> Exception:
    from bagformer_cli.errors import InputError

    return InputError(
        tr("There is no slow scorer whose weight could be chosen."),
        where=place,
        hint=tr("Name one with --slow, and let it see some: --rerank 50"),
    )


def _counts(rerank: str | None) -> list[int] | None:
    """``50,100`` as numbers; None: the config's."""
    from bagformer_cli.errors import InputError

    if rerank is None:
        return None
    parts = rerank.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise InputError(
            tr("--rerank takes whole numbers."), found=rerank, expected=tr("for example 50,100")
        )
    return [int(part) for part in parts]


def _mean_stages(every: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over subsets, figure by figure."""
    return {
        stage: {
            direction: {
                name: sum(one[stage][direction][name] for one in every) / len(every)
                for name in figures
            }
            for direction, figures in both.items()
        }
        for stage, both in every[0].items()
    }


def show_evaluation(report: dict[str, Any]) -> None:
    """Print the recall table of a report, and what else it holds."""
    show_recall(
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
    facts = {name: f"{value:.1f} s" for name, value in report["seconds"].items()}
    if "beta" in report:
        facts[tr("beta: merged = slow + beta x fast")] = f"{report['beta']:g}"
    console.facts(facts)
    if "submission" in report:
        console.say(tr("Submission written: {path}", path=report["submission"]))
