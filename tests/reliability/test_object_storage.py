"""F27: builds on object storage that are killed (moto, a server on loopback)."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.black_box import assert_no_bug, environment, process, program

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class Storage(NamedTuple):
    """A bucket ``shop`` on loopback.

    Args:
        client: boto3's client.
        env: Variables with which a command finds it.
        place: An address where nothing is yet.
        prefix: The beginning of its keys.
    """

    client: Any
    env: dict[str, str | None]
    place: str
    prefix: str


@pytest.fixture
def storage() -> Iterator[Storage]:
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    env: dict[str, str | None] = {
        "AWS_ENDPOINT": url, "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true",
        "ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "no_proxy": "127.0.0.1",
    }  # fmt: skip
    client = boto3.client("s3", endpoint_url=url, aws_access_key_id="a",
                          aws_secret_access_key="b", region_name="us-east-1")  # fmt: skip
    client.create_bucket(Bucket="shop")
    prefix = uuid.uuid4().hex  # moto keeps its buckets from one test to the next
    try:
        yield Storage(client, env, f"s3://shop/{prefix}", prefix)
    finally:
        server.stop()


def write_table(folder: Path, count: int) -> None:
    rows = [f"a{n},p{n % 10}.jpg,红裙{n}" for n in range(count)]
    (folder / "many.csv").write_text("\n".join(["id,image,title", *rows]) + "\n", "utf-8")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after", [1, 2, 4])
def test_f27_a_killed_build_on_object_storage_says_that_it_is_unfinished(
    model: Path, home: Path, storage: Storage, after: int
) -> None:
    write_table(home, 2000)
    place, env = storage.place, storage.env
    build = ["index", "build", "many.csv", f"{place}/index", "--checkpoint", model,
             "--batch-size", 16]  # fmt: skip
    whole = process(*build[:3], f"{place}/whole", *build[4:], cwd=home, env=env)
    if whole.code:
        pytest.skip(f"no build on this object storage: {whole.err[-200:]}")
    started = subprocess.Popen(program(*build), cwd=home, env=environment(**env),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 120
    while started.poll() is None and time.monotonic() < deadline:
        found = storage.client.list_objects_v2(Bucket="shop", Prefix=f"{storage.prefix}/index/")
        if sum("/data/" in one["Key"] for one in found.get("Contents", [])) >= after:
            break
        time.sleep(0.01)
    if started.poll() is None:
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    info = process("index", "info", f"{place}/index", "--json", cwd=home, env=env)
    assert_no_bug(info)
    caught = info.code == 0 and 0 < info.json()["rows"] < 2000
    if caught:
        assert info.json()["unfinished"] is True
        searched = process("search", "红", "--index", f"{place}/index", "--checkpoint", model,
                           cwd=home, env=env)  # fmt: skip
        assert re.search("unfinished|incomplete|missing|interrupted", searched.err)
    again = built = process(*build, cwd=home, env=env)
    if again.code:  # it is refused because there is something: then `add` finishes it
        again = process("index", "add", "many.csv", f"{place}/index", cwd=home, env=env)
    assert again.code == 0, (built.err, again.err)
    info = process("index", "info", f"{place}/index", "--json", cwd=home, env=env)
    assert info.json()["rows"] == 2000
    assert info.json()["unfinished"] is False
    if not caught:
        pytest.skip("the build was not caught in the middle")


def objects(storage: Storage, name: str) -> dict[str, bytes]:
    """The objects below a name, by the rest of their key."""
    start = f"{storage.prefix}/{name}/"
    found = storage.client.list_objects_v2(Bucket="shop", Prefix=start).get("Contents", [])
    return {
        one["Key"].removeprefix(start): storage.client.get_object(Bucket="shop", Key=one["Key"])[
            "Body"
        ].read()
        for one in found
    }


@pytest.mark.timeout(600)
def test_f27_every_part_of_what_a_build_writes_first_can_be_continued(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, count: Callable[[str, int, int], None]
) -> None:
    """A build creates a table, then a second one with the mark "unfinished", which it removes.

    Objects are written and removed one by one. Each set of them that a kill could leave is made
    here, and continued.
    """
    from bagformer_cli.errors import InputError
    from bagformer_cli.index.lancedb_table import LanceTable
    from bagformer_cli.index.rows import FEATURES, Layout

    for name, value in storage.env.items():
        monkeypatch.setenv(name, str(value))
    layout = Layout(FEATURES, 8, "float32", "mean", ("image",))
    table = LanceTable.create(f"{storage.place}/one", layout, None)
    created = objects(storage, "one")
    table.mark("a source", unfinished=True)
    marked = objects(storage, "one")
    mark = {key: value for key, value in marked.items() if key not in created}
    assert len(created) > 1
    assert len(mark) > 1
    states = [
        *subsets({}, created),
        *subsets(created, mark),
    ]
    for number, state in enumerate(states):
        for key, value in state.items():
            storage.client.put_object(
                Bucket="shop", Key=f"{storage.prefix}/{number}/{key}", Body=value
            )
        place = f"{storage.place}/{number}"
        with suppress(InputError):  # there is an index already: `xmr index add` continues it
            LanceTable.create(place, layout, None)  # `xmr index build`
        table = LanceTable.open(place)
        if mark.keys() & state.keys():
            assert table.unfinished_sources()
        table.mark("another", unfinished=True)
        assert "another" in table.unfinished_sources()
        table.mark("another", unfinished=False)
        assert table.unfinished_sources() <= {"a source"}
    count("each set of the first objects", len(states), len(states))


def subsets(base: dict[str, bytes], more: dict[str, bytes]) -> Iterator[dict[str, bytes]]:
    """Yield ``base`` with every subset of the other objects."""
    for size in range(len(more) + 1):
        for keys in itertools.combinations(more, size):
            yield {**base, **{key: more[key] for key in keys}}
