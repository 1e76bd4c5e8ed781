"""Write a model folder that sentence-transformers opens as well.

The files of an xmr model folder stay as they are; two small files are added::

    modules.json                         one module: bagformer_cli.export.sentence_module.XmrEncoder
    config_sentence_transformers.json    which class opens it, and how it compares vectors
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bagformer_cli.config import RunConfig
from bagformer_cli.errors import CheckpointError
from bagformer_cli.files import new_files, write_text
from bagformer_cli.messages import tr
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.card import write_card
from bagformer_cli.models.checkpoint import save_model

MODULE = "bagformer_cli.export.sentence_module.XmrEncoder"
OLDEST = "6.0.0"  # the first version with MultiVectorEncoder
_USE = """\
```python
from PIL import Image
from sentence_transformers import {kind}  # with bagformer-cli installed

model = {kind}("FOLDER", trust_remote_code=True)
titles = model.encode_query(["红色碎花连衣裙"])
images = model.encode_document([Image.open("photo.jpg")])
print(model.similarity(titles, images))
```

sentence-transformers imports classes outside its own package only with `trust_remote_code=True`.
The class is in the package bagformer_cli; the folder itself holds no code. It is also a model
folder of xmr: `xmr eval --checkpoint FOLDER`."""


def library_class(config: RunConfig) -> str:
    """Name the class of sentence-transformers that opens a model."""
    return "SentenceTransformer" if config.model.single else "MultiVectorEncoder"


def export_sentence_transformers(model: RetrievalModel, out: Path) -> str:
    """Write a model folder that sentence-transformers opens as well.

    Args:
        model: The model.
        out: The folder. Files of the same names are replaced.

    Returns:
        The class that opens it: ``SentenceTransformer`` or ``MultiVectorEncoder``.

    Raises:
        CheckpointError: The model reads regions, has the original code's habits, or scores pairs
            in a way that the library does not offer.
    """
    config = model.config
    if config.image.regions is not None or config.compat is not None:
        raise CheckpointError(
            tr("sentence-transformers can run only models that read pixels, without compat."),
            where="compat" if config.compat is not None else "image.regions",
        )
    if not config.model.single and config.model.pooling not in ("each", "text"):
        raise CheckpointError(
            tr("sentence-transformers compares vectors by MaxSim from title to image only."),
            where="model.pooling",
            found=config.model.pooling,
            expected="each, text",
        )
    kind = library_class(config)
    modules = [{"idx": 0, "name": "0", "path": "", "type": MODULE}]
    settings: dict[str, Any] = {
        "model_type": kind,
        "__version__": {"sentence_transformers": OLDEST},
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine" if config.model.single else "maxsim",
    }
    with new_files(out) as folder:
        write_card(folder, config, use=_USE.format(kind=kind))
        save_model(model, folder)
        write_text(folder / "modules.json", json.dumps(modules, indent=2) + "\n")
        name = "config_sentence_transformers.json"
        write_text(folder / name, json.dumps(settings, indent=2) + "\n")
    return kind
