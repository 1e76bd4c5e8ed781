"""A server of Qdrant's REST interface with Qdrant's own engine (qdrant-edge): one node, one shard.

The client's local mode is written in Python and only imitates the engine. Here the engine itself
filters, computes MaxSim and weighs terms, and requests travel as JSON. There is no cluster, and
points are lost when the server stops.

    python -m tests.support.qdrant_server        # prints its address
"""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import qdrant_edge as edge
import uvicorn
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from qdrant_client import models as rest

from tests.support import qdrant_objects as objects

ROOT = Path(__file__).parents[2]


class Stored:
    """A collection.

    Args:
        folder: Where its points are.
        asked: How it was created.
    """

    def __init__(self, folder: Path, asked: rest.CreateCollection) -> None:
        self.asked = asked
        self.metadata: dict[str, Any] = dict(asked.metadata or {})
        self.shard = edge.EdgeShard.create(str(folder), objects.shard_config(asked))

    def about(self) -> dict[str, Any]:
        """Describe it as the server does."""
        params = {
            "vectors": self.asked.vectors,
            "sparse_vectors": self.asked.sparse_vectors,
            "shard_number": self.asked.shard_number or 1,
            "replication_factor": self.asked.replication_factor or 1,
        }
        config = {
            "params": params,
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "metadata": self.metadata,
        }
        info = self.shard.info()
        return {
            "status": "green",
            "optimizer_status": "ok",
            "points_count": info.points_count,
            "segments_count": info.segments_count,
            "config": config,
            "payload_schema": {},
        }


def application(folder: Path) -> FastAPI:
    """Make the server's application; collections are stored in ``folder``."""
    app = FastAPI()
    collections: dict[str, Stored] = {}

    def collection(name: str) -> Stored:
        if name not in collections:
            raise HTTPException(404, f"Not found: Collection `{name}` doesn't exist!")
        return collections[name]

    def update(name: str, operation: edge.UpdateOperation) -> dict[str, Any]:
        collection(name).shard.update(operation)
        return done({"operation_id": 0, "status": "completed"})

    @app.exception_handler(HTTPException)
    def not_found(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"status": {"error": error.detail}, "time": 0}, error.status_code)

    @app.exception_handler(Exception)  # the engine raises this class itself
    def refused(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"status": {"error": str(error)}, "time": 0}, 400)

    @app.get("/collections/{name}/exists")
    def exists(name: str) -> dict[str, Any]:
        return done({"exists": name in collections})

    @app.put("/collections/{name}")
    def create(name: str, asked: rest.CreateCollection) -> dict[str, Any]:
        if name in collections:
            raise HTTPException(409, f"Wrong input: Collection `{name}` already exists!")
        collections[name] = Stored(folder / uuid.uuid4().hex, asked)
        return done(True)

    @app.get("/collections/{name}")
    def about(name: str) -> dict[str, Any]:
        return done(collection(name).about())

    @app.patch("/collections/{name}")
    def change(name: str, asked: rest.UpdateCollection) -> dict[str, Any]:
        collection(name).metadata |= asked.metadata or {}
        return done(True)

    @app.delete("/collections/{name}")
    def drop(name: str) -> dict[str, Any]:
        if name in collections:
            collections.pop(name).shard.close()
        return done(True)

    @app.put("/collections/{name}/vectors/{vector}")
    def add_vector(name: str, vector: str, asked: rest.SparseVectorNameConfig) -> dict[str, Any]:
        own = collection(name)
        params = rest.SparseVectorParams(modifier=asked.sparse.modifier)
        own.asked.sparse_vectors = {**(own.asked.sparse_vectors or {}), vector: params}
        return update(name, edge.UpdateOperation.create_sparse_vector(vector, edge.Modifier.Idf))

    @app.put("/collections/{name}/index")
    def add_index(name: str, asked: rest.CreateFieldIndex) -> dict[str, Any]:
        kind = objects.PAYLOAD_TYPES[rest.PayloadSchemaType(asked.field_schema)]
        return update(name, edge.UpdateOperation.create_field_index(asked.field_name, kind))

    @app.put("/collections/{name}/points")
    def upsert(name: str, asked: rest.PointsList) -> dict[str, Any]:
        points = [objects.point(own) for own in asked.points]
        return update(name, edge.UpdateOperation.upsert_points(points))

    @app.post("/collections/{name}/points/delete")
    def delete(name: str, asked: rest.FilterSelector) -> dict[str, Any]:
        narrow = objects.condition(asked.filter)
        return update(name, edge.UpdateOperation.delete_points_by_filter(narrow))

    @app.post("/collections/{name}/points/payload")
    def set_payload(name: str, asked: rest.SetPayload) -> dict[str, Any]:
        assert asked.points is not None
        return update(name, edge.UpdateOperation.set_payload(asked.points, asked.payload))

    @app.put("/collections/{name}/points/vectors")
    def update_vectors(name: str, asked: rest.UpdateVectors) -> dict[str, Any]:
        vectors = [objects.point_vectors(own) for own in asked.points]
        return update(name, edge.UpdateOperation.update_vectors(vectors))

    @app.post("/collections/{name}/points/count")
    def count(name: str, asked: rest.CountRequest) -> dict[str, Any]:
        request = edge.CountRequest(True, objects.narrowed(asked.filter))
        return done({"count": collection(name).shard.count(request)})

    @app.post("/collections/{name}/points")
    def retrieve(name: str, asked: rest.PointRequest) -> dict[str, Any]:
        payload = True if asked.with_payload is None else objects.selected(asked.with_payload)
        found = collection(name).shard.retrieve(asked.ids, payload, asked.with_vector or False)
        return done(list(map(objects.answer, found)))

    @app.post("/collections/{name}/points/scroll")
    def scroll(name: str, asked: rest.ScrollRequest) -> dict[str, Any]:
        request = edge.ScrollRequest(
            asked.offset,
            asked.limit,
            objects.narrowed(asked.filter),
            objects.selected(asked.with_payload),
            asked.with_vector or False,
        )
        found, following = collection(name).shard.scroll(request)
        after = None if following is None else str(following)
        return done({"points": list(map(objects.answer, found)), "next_page_offset": after})

    @app.post("/collections/{name}/points/query")
    def query(name: str, asked: rest.QueryRequest) -> dict[str, Any]:
        found = collection(name).shard.query(objects.query(asked))
        return done({"points": list(map(objects.answer, found))})

    @app.post("/collections/{name}/points/query/batch")
    def queries(
        name: str, searches: Annotated[list[rest.QueryRequest], Body(embed=True)]
    ) -> dict[str, Any]:
        request = edge.QueryBatchRequest(list(map(objects.query, searches)))
        found = collection(name).shard.query_batch(request)
        return done([{"points": list(map(objects.answer, own))} for own in found])

    return app


def done(result: Any) -> dict[str, Any]:
    """Wrap a result as the server does."""
    return {"status": "ok", "time": 0.0, "result": result}


@contextmanager
def serving() -> Iterator[str]:
    """Run the server in a process of its own; gives its address, ``qdrant://host:port``."""
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def main() -> None:
    """Serve on a free port until a signal comes."""
    memory = Path("/dev/shm")  # the engine writes every change through to the disk
    parent = memory if memory.is_dir() else None
    with TemporaryDirectory(dir=parent) as folder, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # a client that comes before the server waits
        print(f"qdrant://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(application(Path(folder)), log_level="warning")
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
