"""Files of models on the Hugging Face hub: from the cache, or downloaded if the hub answers.

Without a network, the hub's own client repeats its requests, which takes minutes and fills the
terminal. Here one short request decides first, and one error says what can be done.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bagformer_cli.errors import CheckpointError, XmrError, listed
from bagformer_cli.messages import tr
from bagformer_cli.opening import read_regular

SECONDS = 2.0
"""How long the hub has to answer the first request."""
_WEIGHTS = {".safetensors", ".bin"}
_UNREAD = ["*.onnx", "onnx/*", "openvino/*", "*.h5", "*.msgpack", "*.ot", "*.gguf", "coreml/*"]
"""Weights in formats that nothing here reads."""
_CARD_BYTES = 1 << 20
_LICENCE = re.compile(r"^license:\s*[\"']?([\w.+-]+)[\"']?\s*$", re.MULTILINE)
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


def is_hub_name(source: str) -> bool:
    """Tell whether a text can be the name of a model on the hub: ``name`` or ``owner/name``."""
    return bool(_NAME.fullmatch(source)) and not source.startswith(".")


def fetch(name: str, files: Sequence[str], setting: str) -> Path:
    """Return the first of some files that a model on the hub has.

    Args:
        name: The model, ``owner/name``.
        files: File names, the preferred one first. One that is in the cache already is taken
            without any request.
        setting: The setting that names the model, for the message.

    Raises:
        CheckpointError: The hub cannot be reached, or has no such model or file.
    """
    cached = [path for file in files if (path := cached_file(name, file)) is not None]
    if cached:
        return cached[0]
    require_hub(name, setting)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    for file in files:
        try:
            return Path(hf_hub_download(name, file))
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise _no_such_model(name, setting) from error
        except Exception as error:  # the hub's family of errors is wide
            raise _unreachable(name, setting, error) from error
    raise CheckpointError(
        tr("This model on the hub lacks a file."),
        where=f"{setting}: {name}",
        expected=tr("one of: {names}", names=listed(files)),
    )


def snapshot(name: str, setting: str) -> Path:
    """Return a folder with all files of a model on the hub: configuration, tokenizer, weights.

    Args:
        name: The model, ``owner/name``. If its weights are in the cache, nothing is requested.
        setting: The setting that names the model, for the message.

    Raises:
        CheckpointError: The hub cannot be reached, or has no such model.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    with suppress(LocalEntryNotFoundError):
        cached = Path(snapshot_download(name, local_files_only=True))
        if any(path.suffix in _WEIGHTS for path in cached.rglob("*")):
            return cached
    require_hub(name, setting)
    try:
        files = HfApi().list_repo_files(name)
        has_safe = any(file.endswith(".safetensors") for file in files)
        unread = [*_UNREAD, *(["*.bin", "*.pt", "*.pth"] if has_safe else [])]
        return Path(snapshot_download(name, ignore_patterns=unread))
    except RepositoryNotFoundError as error:
        raise _no_such_model(name, setting) from error
    except Exception as error:  # the hub's family of errors is wide
        raise _unreachable(name, setting, error) from error


def cached_file(name: str, file: str) -> Path | None:
    """Find a file of a model in the local cache of the hub."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file)
    return Path(found) if isinstance(found, str) else None


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Upload a folder to the hub, as a model; make the model there if it does not exist.

    Args:
        folder: The folder. State of a training that can be resumed is left out.
        name: ``owner/name``.
        private: Make a new model private.

    Returns:
        The address of the model.

    Raises:
        CheckpointError: The hub cannot be reached or refuses the upload.
    """
    from huggingface_hub import HfApi

    try:
        require_hub(name, "xmr push")
    except CheckpointError as error:
        raise CheckpointError(
            tr("The hub cannot be reached, so nothing was uploaded."),
            where=name,
            found=error.found,
            hint=tr("Try again with a network, or set HF_ENDPOINT to another address of the hub."),
        ) from error
    try:
        api = HfApi()
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message="Upload with xmr push",
            ignore_patterns=["state.*", ".*"],
        )
    except Exception as error:  # the hub's family of errors is wide
        raise CheckpointError(
            tr("The hub refused the upload."),
            where=name,
            found=(str(error).strip().splitlines() or [type(error).__name__])[0][:200],
            hint=tr("Log in with `hf auth login`; the name must be yours: OWNER/NAME."),
        ) from error
    return str(made)


def licence_of(folder: Path) -> str | None:
    """Read the licence from the header of a model folder's ``README.md``; None: it names none."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    try:
        text = read_regular(card, _CARD_BYTES).decode("utf-8", "replace")
    except XmrError:
        return None
    header = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = _LICENCE.search(header)
    return found[1] if found else None


def require_hub(name: str, setting: str) -> None:
    """Check that the hub answers one request in :data:`SECONDS`.

    Raises:
        CheckpointError: It does not; the message names the model and the setting.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise _unreachable(name, setting, "HF_HUB_OFFLINE")
    outcome: list[Exception | None] = []
    # In a thread, because looking up the host's name has no timeout.
    thread = threading.Thread(target=lambda: outcome.append(_request()), daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not outcome or isinstance(getattr(outcome[0], "reason", outcome[0]), TimeoutError):
        raise _unreachable(name, setting, tr("no answer in {n} s", n=f"{SECONDS:.0f}"))
    if outcome[0] is not None:
        raise _unreachable(name, setting, outcome[0])


def _request() -> Exception | None:
    """Ask the hub for anything; any answer will do."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(_endpoint(), timeout=SECONDS):
            return None
    except HTTPError:
        return None
    except Exception as error:  # no network, no such host, refused, not an address
        return error


def cache_folder() -> Path:
    """Return the folder in which downloaded models are kept (``HF_HUB_CACHE``)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _no_such_model(name: str, setting: str) -> CheckpointError:
    return CheckpointError(
        tr("The hub has no model of that name, or it is not public."),
        where=f"{setting}: {name}",
        found=_endpoint(),
        hint=_advice(setting),
    )


def _unreachable(name: str, setting: str, why: object) -> CheckpointError:
    reason = str(getattr(why, "reason", why)).strip().splitlines() or [type(why).__name__]
    reason[0] = re.sub(r"^\[Errno -?\d+\] ", "", reason[0])
    return CheckpointError(
        tr("The model is not on this machine, and the hub cannot be reached to download it."),
        where=f"{setting}: {name}",
        found=tr(
            "{address}: {reason}; not in the cache {folder}",
            address=_endpoint(),
            reason=reason[0],
            folder=cache_folder(),
        ),
        hint=_advice(setting),
    )


def _advice(setting: str) -> str:
    if "." not in setting:  # an argument of a command, not a setting
        return tr(
            "Download the model elsewhere, for example from ModelScope, and give its folder "
            "instead of the name. Or set HF_ENDPOINT to another address of the hub."
        )
    return tr(
        "Download the model elsewhere, for example from ModelScope, and give its folder: {option}. "
        "Or set HF_ENDPOINT to another address of the hub.",
        option=f"{setting} {tr('FOLDER')}"
        if setting.startswith("--")
        else f"--set {setting}={tr('FOLDER')}",
    )
