"""Connect to a collection of Qdrant; its ids and its errors."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from qdrant_client import QdrantClient

from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.index.engine import engine_error
from bagformer_cli.messages import tr

NAMESPACE = uuid.UUID("6d75f9a2-6b0e-4c57-9c5e-3f1f0a2b7d11")
TIMEOUT = 60


def point_id(name: str) -> str:
    """Return the UUID of a product; Qdrant accepts no text as the id of a point."""
    return str(uuid.uuid5(NAMESPACE, name))


def is_local(uri: str) -> bool:
    """Tell whether an address means the client's local mode."""
    return uri.startswith("qdrant:///")


def connect(uri: str) -> tuple[QdrantClient, str]:
    """Connect to the server of an address; return the client and the name of the collection.

    Raises:
        InputError: The address does not name a collection.
    """
    scheme, _, rest = uri.partition("://")
    place, _, collection = rest.rpartition("/")
    if not collection or not place:
        raise InputError(
            tr("The address does not name a collection."),
            found=uri,
            expected="qdrant://host:6333/collection",
        )
    with qdrant_errors(uri):
        if is_local(uri):
            return QdrantClient(path=place), collection
        return (
            QdrantClient(
                url=f"{'https' if scheme == 'qdrants' else 'http'}://{place}",
                api_key=os.environ.get("QDRANT_API_KEY"),
                timeout=TIMEOUT,
                check_compatibility=False,
            ),
            collection,
        )


@contextmanager
def qdrant_errors(uri: str) -> Iterator[None]:
    """Raise the client's exceptions as this project's errors."""
    try:
        yield
    except (XmrError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise engine_error(uri, error) from error
