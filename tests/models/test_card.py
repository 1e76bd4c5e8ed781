"""Model cards, and model folders on the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from bagformer_cli.errors import CheckpointError
from bagformer_cli.models.card import card_of, write_card
from bagformer_cli.models.checkpoint import save_model
from bagformer_cli.models.fingerprint import fingerprint
from bagformer_cli.models.runs import find_checkpoint
from tests.conftest import Run
from tests.support.small_model import saved_model, small_model

FIGURES = {
    "n_queries": 1000,
    "n_items": 2000,
    "stages": {
        "recall": {
            "text_to_image": {
                "recall@1": 12.345, "recall@5": 30.0, "recall@10": 45.5, "mean_recall": 29.28
            },
            "image_to_text": {
                "recall@1": None, "recall@5": None, "recall@10": None, "mean_recall": None
            },
        }
    },
}  # fmt: skip


def header(card: str) -> Any:
    return yaml.safe_load(card.split("---")[1])


def test_a_saved_model_has_a_card(tmp_path: Path) -> None:
    model = small_model()
    save_model(model, tmp_path)
    card = (tmp_path / "README.md").read_text("utf-8")
    assert header(card)["library_name"] == "xmr"
    assert header(card)["language"] == "zh"
    assert "license" not in header(card)
    for fact in ("bagwise, 16 dimensions", "16 × 16 pixels", "| training data | demo |", "load("):
        assert fact in card
    assert "Recall" not in card


def test_a_card_shows_what_was_measured() -> None:
    card = card_of(small_model().config, FIGURES)
    assert "| recall, text to image | 12.35 / 30.00 / 45.50 / 29.28 |" in card
    assert "| recall, image to text | - / - / - / - |" in card
    assert "1,000 queries, a pool of 2,000 images." in card


def test_a_card_names_the_weights_it_began_from_and_their_licence(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "README.md").write_text("---\nlicense: apache-2.0\n---\n", "utf-8")
    config = small_model().config
    config.training.checkpoint = str(tmp_path / "start")
    config.text.pretrained = "hfl/chinese-roberta-wwm-ext"
    card = card_of(config)
    assert header(card)["license"] == "apache-2.0"
    assert header(card)["base_model"] == ["hfl/chinese-roberta-wwm-ext"]
    assert f"- `{tmp_path}/start`, licence: apache-2.0" in card
    assert "- `hfl/chinese-roberta-wwm-ext`, licence: not known" in card


def test_a_card_that_somebody_wrote_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", "utf-8")
    write_card(tmp_path, small_model().config)
    assert (tmp_path / "README.md").read_text("utf-8") == "mine"


class FakeHub:
    """Stands for ``huggingface_hub.HfApi``: notes what is uploaded."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def create_repo(self, name: str, **options: Any) -> str:
        self.calls.append(("create", (name, options)))
        return f"https://hub.example/{name}"

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload", options))


def test_push_uploads_the_model_folder_of_a_run(
    xmr: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_model(tmp_path / "run" / "best")
    monkeypatch.setattr("bagformer_cli.hub.require_hub", lambda name, setting: None)
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    FakeHub.calls = []
    run = xmr("push", tmp_path / "run", "shop/model", "--private", "--json")
    assert run.json()["address"] == "https://hub.example/shop/model"
    (create, upload) = FakeHub.calls
    assert create[1] == ("shop/model", {"private": True, "exist_ok": True})
    assert Path(upload[1]["folder_path"]) == tmp_path / "run" / "best"
    assert upload[1]["repo_id"] == "shop/model"


def test_push_without_a_network_or_a_model_is_one_sentence(
    xmr: Callable[..., Run], tmp_path: Path
) -> None:
    folder = saved_model(tmp_path / "model")
    for arguments, words in (
        ((folder, "shop/model"), "nothing was uploaded"),
        ((folder, "model"), "OWNER/NAME"),
        ((tmp_path / "none", "shop/model"), "no model folder here"),
    ):
        run = xmr("push", *arguments)
        assert run.code == 2
        assert words in run.err


def test_a_name_on_the_hub_is_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bagformer_cli.api import load

    folder = saved_model(tmp_path / "cached")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bagformer_cli.models.runs.snapshot", lambda name, setting: folder)
    assert find_checkpoint("shop/model") == folder
    assert fingerprint(load("shop/model", "cpu").model) == fingerprint(small_model())


def test_a_path_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("runs/typo") == Path("runs/typo")
    for path in ("model", "./a/b", "a/b/c", "/a/b", "a/b.pth"):
        assert find_checkpoint(path) == Path(path)
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        find_checkpoint("shop/model")
