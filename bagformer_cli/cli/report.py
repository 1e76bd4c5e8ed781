"""``xmr report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagformer_cli.cli import console
from bagformer_cli.cli.app import App, Debug, Json
from bagformer_cli.errors import InputError
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.training.run_history import RunHistory

app = App()

_MOST_ROWS = 20  # settings that the terminal shows


@app.command(
    help=tr(
        "Show training runs as one HTML page: curves of recall, losses, learning rate, gradient "
        "norm and speed, the final figures, and the settings that differ. The page links to "
        "nothing outside.\n\n"
        "A run may still be training, or may have been killed: the page shows the figures that it "
        "has recorded so far.\n\n"
        "    xmr report runs/fast runs/base --output report.html"
    )
)
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar=tr("RUN"),
            help=tr("Run folders, or folders of chains. Default: the newest run under runs/."),
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar=tr("FILE"), help=tr("HTML file to write."))
    ] = Path("report.html"),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Parse, read, write, print."""
    from bagformer_cli.outputs import check_output
    from bagformer_cli.pages.html import require_page
    from bagformer_cli.pages.training import write_training_page
    from bagformer_cli.training.run_folder import RUNS, newest_runs
    from bagformer_cli.training.run_history import differing_settings, read_histories

    require_page(output)
    check_output(output)
    chosen = runs or newest_runs(RUNS)[:1]
    if not chosen:
        raise InputError(
            tr("There is no training run yet."),
            where=RUNS,
            hint=tr("Name run folders, or train a model: xmr train"),
        )
    histories = read_histories(chosen)
    for history in histories:
        for remark in history.remarks:
            console.warn(remark)
    write_training_page(output, histories)
    differing = differing_settings(histories) if len(histories) > 1 else {}
    found = {
        "page": str(output),
        "runs": [history.figures() for history in histories],
        "differing_settings": differing,
    }
    console.result(found, lambda: _show(output, histories, differing))


def _show(output: Path, histories: list[RunHistory], differing: dict[str, list[Any]]) -> None:
    """Print the main figures, the settings that differ, and the page."""
    from bagformer_cli.config.settings import as_yaml
    from bagformer_cli.models.runs import short_names
    from bagformer_cli.pages.training import state_name, steps_done

    names = short_names([str(history.run) for history in histories])
    figures = [history.figures() for history in histories]
    console.table(
        [tr("run"), tr("state"), tr("steps"), tr("loss"), tr("best recall, %"),
         tr("seconds of training"), tr("pairs/s")],
        [
            [name, state_name(history), steps_done(one), one["loss"], one["mean_recall"],
             one["seconds"], one["pairs_per_second"]]
            for name, history, one in zip(names, histories, figures, strict=True)
        ],
    )  # fmt: skip
    if differing:
        console.say()
        shown = dict(list(differing.items())[:_MOST_ROWS])
        console.table(
            [tr("setting"), *names],
            [
                [setting, *("–" if value is None else as_yaml(value) for value in values)]
                for setting, values in shown.items()
            ],
        )
        if len(shown) < len(differing):
            console.say(tr("{n} more settings differ; the page has all.",
                           n=len(differing) - len(shown)))  # fmt: skip
    console.say()
    console.facts({tr("page"): output})
