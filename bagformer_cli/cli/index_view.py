"""Output of ``xmr index``: how many products were added, and the facts about an index."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bagformer_cli.cli import console
from bagformer_cli.cli.formatting import duration
from bagformer_cli.errors import listed
from bagformer_cli.messages import tr

if TYPE_CHECKING:
    from bagformer_cli.index.build import Added
    from bagformer_cli.index.engine import Engine


ENGINES = {"lancedb": "LanceDB", "qdrant": "Qdrant"}


def report_added(engine: Engine, added: Added, started: float) -> None:
    """Print what was added since ``started``, a time of ``time.perf_counter``."""
    report: dict[str, Any] = {
        "index": engine.uri,
        "added": added.rows - added.replaced,
        "replaced": added.replaced,
        "skipped": [str(error) for error in added.skipped],
        "unchanged": added.unchanged,
        "rows": engine.count(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    console.result(
        report,
        lambda: console.facts(
            {
                tr("index"): report["index"],
                tr("added"): report["added"],
                **({tr("replaced"): added.replaced} if added.replaced else {}),
                tr("left out"): len(added.skipped),
                tr("products in the index"): report["rows"],
                tr("time"): duration(report["seconds"]),
            }
        ),
    )


def warn_incomplete(uri: str) -> None:
    """Warn that the last build or add was interrupted."""
    console.warn(
        tr(
            "This index is incomplete: the last build or add was interrupted. Run `xmr index add` "
            "again."
        ),
        uri,
    )


def show_info(report: dict[str, Any]) -> None:
    """Print the facts about an index."""
    from bagformer_cli.config.expected import type_word

    layout = report["layout"]
    if report.get("unfinished"):
        warn_incomplete(report["index"])
    steps = {"keep": tr("keep"), "prune": tr("prune"), "pool": tr("pool")}
    reduction = listed(f"{steps[name]} {value}" for name, value in layout["fewer"].items())
    attributes = listed(
        tr("{message} ({details})", message=name, details=type_word(kind))
        for name, kind in layout["attributes"].items()
    )
    console.facts(
        {
            tr("index"): report["index"],
            tr("engine"): ENGINES.get(report["engine"], report["engine"]),
            tr("products in the index"): report["rows"],
            **{
                tr("with an image") if side == "image" else tr("with a title"): count
                for side, count in report["sides"].items()
            },
            tr("vectors"): f"{layout['dtype']} × {layout['dim']}",
            tr("vector reduction"): reduction or None,
            tr("single vector"): layout["one"],
            tr("attributes"): attributes or None,
            tr("model"): f"{layout['model']}  {layout['checkpoint']}",
            tr("megabytes"): report["bytes"] / 1e6,
        }
    )
