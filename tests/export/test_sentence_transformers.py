"""``xmr export sentence-transformers``: the library's own classes give the model's scores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagformer_cli.api import Retriever
from bagformer_cli.errors import CheckpointError, InputError
from bagformer_cli.export.sentence_folder import export_sentence_transformers
from bagformer_cli.models.build import RetrievalModel
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.fingerprint import fingerprint
from tests.conftest import Run
from tests.support.exported import TITLES, images, model_of

VARIANTS = {
    "MultiVectorEncoder": [["model.bag_fusion=late"], ["model.interaction=tokenwise"]],
    "SentenceTransformer": [["model.interaction=cls"]],
}
CASES = [(kind, extra) for kind, all_of in VARIANTS.items() for extra in all_of]


def opened(kind: str, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("sentence_transformers")
        return getattr(library, kind)(str(folder), trust_remote_code=True, device="cpu")


def scores(model: RetrievalModel) -> Any:
    ours = Retriever(model)
    return ours.score(ours.encode_images(images()), ours.encode_texts(TITLES)).t2i.numpy()


@pytest.mark.parametrize(("kind", "overrides"), CASES)
def test_the_library_gives_the_models_scores(
    kind: str, overrides: list[str], tmp_path: Path
) -> None:
    model = model_of(*overrides)
    assert export_sentence_transformers(model, tmp_path / "st") == kind
    theirs = opened(kind, tmp_path / "st")
    titles = theirs.encode_query(TITLES, batch_size=4)
    pictures = theirs.encode_document(images(), batch_size=5)
    np.testing.assert_allclose(theirs.similarity(titles, pictures), scores(model), atol=1e-5)
    assert theirs.get_embedding_dimension() == model.config.model.embed_dim


def test_the_folder_is_a_model_folder_and_holds_no_code(
    xmr: Callable[..., Run], tmp_path: Path
) -> None:
    from bagformer_cli.models.checkpoint import load_model

    model = model_of()
    save_model(model, tmp_path / "model")
    run = xmr("export", "sentence-transformers", tmp_path / "model", tmp_path / "st", "--json")
    assert run.json()["class"] == "MultiVectorEncoder"
    assert fingerprint(load_model(tmp_path / "st")) == fingerprint(model)
    assert not list((tmp_path / "st").rglob("*.py"))
    assert "trust_remote_code" in (tmp_path / "st" / "README.md").read_text("utf-8")


def test_a_module_made_here_needs_no_trust(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    from bagformer_cli.export.sentence_module import XmrEncoder

    model = model_of()
    export_sentence_transformers(model, tmp_path / "st")
    with pytest.raises(ValueError, match="trust_remote_code"):
        library.MultiVectorEncoder(str(tmp_path / "st"), device="cpu")
    module = XmrEncoder.load(str(tmp_path / "st"))
    theirs = library.MultiVectorEncoder(modules=[module], device="cpu")
    found = theirs.similarity(theirs.encode_query(TITLES), theirs.encode_document(images()))
    np.testing.assert_allclose(found, scores(model), atol=1e-5)
    with pytest.raises(InputError, match="texts, or images"):
        module.preprocess(["红", images(1)[0]])
    theirs.save(str(tmp_path / "again"), create_model_card=False)
    again = opened("MultiVectorEncoder", tmp_path / "again")
    np.testing.assert_allclose(again.encode_query("红裙"), theirs.encode_query("红裙"), atol=1e-6)


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    regions = model_of("model.shared.cells=3", "image.regions.width=6", "image.regions.maximum=4")
    for model, key in ((regions, "image.regions"), (model_of("model.pooling=both"), "pooling")):
        with pytest.raises(CheckpointError, match=key):
            export_sentence_transformers(model, tmp_path / "st")
    assert not (tmp_path / "st").exists()
