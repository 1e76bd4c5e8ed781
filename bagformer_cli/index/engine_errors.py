"""This project's errors for the exceptions of LanceDB's and Qdrant's libraries."""

from __future__ import annotations

import re

from bagformer_cli.errors import DiskFullError, InputError, XmrError
from bagformer_cli.messages import tr

_REFUSED = r"\b40[13]\b|unauthori[sz]ed|forbidden|access ?denied|credential|signature"
_UNREACHABLE = (
    r"ResponseHandlingException|connect|refused|timed? ?out|dns|resolve|unreachable|valid host"
    r"|\b50[0234]\b|NoSuchBucket|bucket"
)


def engine_error(uri: str, error: Exception) -> XmrError:
    """Return this project's error for an exception of LanceDB's or Qdrant's library.

    Their texts name source files and inner types. They are read here, but shown with ``--debug``
    only, as the cause of this error.
    """
    said = f"{type(error).__name__}: {error}"
    if "No space left" in said:
        return DiskFullError(
            tr("The disk is full."),
            where=uri,
            hint=tr("Free some space or choose another folder, then run the command again."),
        )
    if re.search(r"commit conflict|preempted", said, re.I):
        return InputError(
            tr("Another process is writing to this index."),
            where=uri,
            hint=tr("Run the command again when it is done."),
        )
    if re.search(r"already accessed by another instance", said, re.I):
        return InputError(
            tr("Another process has this index open; a local Qdrant folder is for one at a time."),
            where=uri,
            hint=tr("Run the command again when it is done."),
        )
    if "://" in uri and re.search(_REFUSED, said, re.I):
        return InputError(
            tr("The server or the storage refuses access to this index."),
            where=uri,
            hint=tr("Check the key or the credentials."),
        )
    if "://" in uri and re.search(_UNREACHABLE, said, re.I):
        return InputError(
            tr("The server or the storage of this index cannot be reached."),
            where=uri,
            hint=tr("Check the address and the network."),
        )
    return InputError(
        tr("The index cannot be read: it is damaged, or another version made it."),
        where=uri,
        hint=tr("Build it again, or restore a copy. --debug shows what its engine says."),
    )
