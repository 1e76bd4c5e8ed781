"""Connect to a collection of Qdrant; its ids and its errors."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from qdrant_client import QdrantClient
from qdrant_client import models as q

from bagformer_cli.errors import InputError, XmrError
from bagformer_cli.index.engine_errors import engine_error
from bagformer_cli.messages import tr

NAMESPACE = uuid.UUID("6d75f9a2-6b0e-4c57-9c5e-3f1f0a2b7d11")
TIMEOUT = 60


class Collection(NamedTuple):
    """A collection of a server.

    Args:
        client: The client that is connected to the server.
        name: The name of the collection.
    """

    client: QdrantClient
    name: str

    def pages(
        self,
        size: int,
        narrow: q.Filter | None = None,
        *,
        payload: Sequence[str] = (),
        vectors: Sequence[str] = (),
    ) -> Iterator[list[Any]]:
        """Yield all points, or those of a filter, in lists that are never empty.

        Args:
            size: Points of a list at most; they are read with one request.
            narrow: Which points; None: all.
            payload: The fields that the points carry.
            vectors: The names of the vectors that they carry.
        """
        following: Any = None
        while True:
            points, following = self.client.scroll(
                self.name,
                narrow,
                limit=size,
                offset=following,
                with_payload=q.PayloadSelectorInclude(include=[*payload]) if payload else False,
                with_vectors=[*vectors] if vectors else False,
            )
            if points:
                yield points
            if following is None:
                return


def point_id(name: str) -> str:
    """Return the UUID of a product; Qdrant accepts no text as the id of a point."""
    return str(uuid.uuid5(NAMESPACE, name))


def is_local(uri: str) -> bool:
    """Tell whether an address means the client's local mode."""
    return uri.startswith("qdrant:///")


def connect(uri: str) -> Collection:
    """Connect to the server of an address; the collection may not exist yet.

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
            return Collection(QdrantClient(path=place), collection)
        client = QdrantClient(
            url=f"{'https' if scheme == 'qdrants' else 'http'}://{place}",
            api_key=os.environ.get("QDRANT_API_KEY"),
            timeout=TIMEOUT,
            check_compatibility=False,
        )
        return Collection(client, collection)


@contextmanager
def qdrant_errors(uri: str) -> Iterator[None]:
    """Raise the client's exceptions as this project's errors."""
    try:
        yield
    except (XmrError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise engine_error(uri, error) from error
