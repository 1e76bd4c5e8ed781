"""Models on the hub: from the cache, or one clear error soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from bagformer_cli import hub
from bagformer_cli.errors import CheckpointError


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")


@pytest.mark.parametrize("network", ["refuses", "hangs", "has no such name", "is off"])
def test_without_a_hub_one_error_names_the_setting_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, silent: str, network: str
) -> None:
    address = {
        "refuses": "http://127.0.0.1:9",
        "hangs": silent,
        "has no such name": "http://nowhere.invalid",
        "is off": silent,
    }[network]
    monkeypatch.setattr(constants, "ENDPOINT", address)
    if network == "is off":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        hub.fetch("nobody/no-such-model", ["model.safetensors"], "text.pretrained")
    assert time.monotonic() - began < 3 + hub.SECONDS
    error = caught.value
    assert error.where == "text.pretrained: nobody/no-such-model"
    assert address in str(error.found)
    for word in ("--set text.pretrained=FOLDER", "HF_ENDPOINT", "ModelScope"):
        assert word in str(error.hint)


def test_a_cached_file_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/1"
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(b"x")
    (tmp_path / "models--a--b/refs").mkdir()
    (tmp_path / "models--a--b/refs/main").write_text("1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = hub.fetch("a/b", ["model.safetensors", "pytorch_model.bin"], "image.pretrained")
    assert found == snapshot / "pytorch_model.bin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("bert-base-chinese", True), ("hfl/rbt3", True), ("/a/b", False), ("../a", False),
     ("a/b/c", False), ("./bert", False), ("模型", False), ("", False)],
)  # fmt: skip
def test_names_of_the_hub_are_no_paths(text: str, expected: bool) -> None:
    assert hub.is_hub_name(text) == expected
