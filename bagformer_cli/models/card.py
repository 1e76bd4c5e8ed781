"""The model card (``README.md``) of a model folder: what the model is, and how to load it.

Everything in it is known when the folder is written: the configuration, and for ``best/`` the
recall that was just measured. Text that a person has added is not overwritten: a card is written
only into a folder without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagformer_cli import __version__
from bagformer_cli.config import RunConfig
from bagformer_cli.files import write_text
from bagformer_cli.hub import is_hub_name, licence_of

CARD = "README.md"


def write_card(
    folder: Path,
    config: RunConfig,
    figures: Mapping[str, Any] | None = None,
    use: str | None = None,
) -> None:
    """Write ``README.md`` unless the folder has one.

    Args:
        folder: A model folder.
        config: Its configuration.
        figures: Recall by stage and direction, as ``Evaluation.to_json`` returns it; None: it was
            not measured.
        use: Text on how to load the folder; None: as a model folder.
    """
    if not (folder / CARD).exists():
        write_text(folder / CARD, card_of(config, figures, use))


def card_of(
    config: RunConfig, figures: Mapping[str, Any] | None = None, use: str | None = None
) -> str:
    """Write the text of a model card; see :func:`write_card`."""
    sources = sources_of(config)
    licences = sorted({licence for _, licence in sources if licence is not None})
    header = ["library_name: xmr", "language: zh"]
    if len(licences) == 1:
        header.append(f"license: {licences[0]}")
    names = [name for name, _ in sources if is_hub_name(name) and "/" in name]
    if names:
        header += ["base_model:", *(f"- {name}" for name in names)]
    header += ["tags:", "- image-text-retrieval", "- e-commerce", f"- {config.model.interaction}"]
    parts = [
        "---\n" + "\n".join(header) + "\n---",
        "# Image-title retrieval model",
        "Encodes Chinese product titles and product images to vectors that are compared with each "
        f"other. Made with xmr {__version__} (package `bagformer-cli`).",
        _table("Setting", "Value", _settings(config)),
        "## Weights that it began from",
        _origins(sources),
    ]
    if figures is not None:
        parts += ["## Recall on the validation split", _recalls(figures)]
    parts += ["## Use", use or _USE]
    return "\n\n".join(parts) + "\n"


def sources_of(config: RunConfig) -> list[tuple[str, str | None]]:
    """List the weights that a configuration names as a start, each with its licence if known."""
    named = [config.text.pretrained, config.image.pretrained, config.training.checkpoint]
    if config.image.pretrained is True:
        named[1] = f"timm/{config.image.backbone}"
    found = []
    for source in named:
        if isinstance(source, str):
            folder = Path(source)
            found.append((source, licence_of(folder) if folder.is_dir() else None))
    return found


_USE = """\
```python
from bagformer_cli import load

retriever = load("FOLDER")  # this folder, or its name on the Hugging Face hub
images = retriever.encode_images(["photo.jpg"])
titles = retriever.encode_texts(["红色碎花连衣裙"])
print(retriever.score(images, titles).t2i_mean)
```

On the command line: `xmr score photo.jpg 红色碎花连衣裙 --checkpoint FOLDER`.
The folder holds no code."""


def _settings(config: RunConfig) -> list[tuple[str, str]]:
    model, image, text = config.model, config.image, config.text
    vectors = "one vector a side" if model.single else model.interaction
    rows = [
        ("vectors", f"{vectors}, {model.embed_dim} dimensions"),
        ("titles", f"{text.layers} layers of width {text.width}, {text.max_tokens} tokens"),
    ]
    if image.regions is not None:
        rows.append(("images", f"regions of a detector, {image.regions.width} features"))
    else:
        rows.append(("images", f"{image.backbone}, {image.size} × {image.size} pixels"))
    cross = "none" if model.cross is None else model.cross.kind
    rows += [("cross-encoder", cross), ("training data", str(config.data.dataset))]
    if config.compat is not None:
        rows.append(("compat", config.compat))
    return rows


def _origins(sources: list[tuple[str, str | None]]) -> str:
    if not sources:
        return "None are named in `config.yaml`."
    lines = [f"- `{name}`, licence: {licence or 'not known'}" for name, licence in sources]
    return "\n".join([*lines, "", "The licence of these weights applies to this model as well."])


def _recalls(figures: Mapping[str, Any]) -> str:
    rows = []
    for stage, both in figures["stages"].items():
        for direction, values in both.items():
            shown = [
                "-" if value is None else f"{value:.2f}"
                for value in (values.get(f"recall@{k}") for k in (1, 5, 10))
            ]
            mean = values.get("mean_recall")
            shown.append("-" if mean is None else f"{mean:.2f}")
            rows.append((f"{stage}, {direction.replace('_', ' ')}", " / ".join(shown)))
    table = _table("Stage and direction", "R@1 / R@5 / R@10 / mean, %", rows)
    pool = f"{figures['n_queries']:,} queries, a pool of {figures['n_items']:,} images."
    return f"{table}\n\n{pool}"


def _table(left: str, right: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows)])
