"""Work spread by Ray: every job once, errors as they are, a node that dies in the middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from threading import enumerate as enumerate_threads
from typing import Any

import pytest

from bagformer_cli.data.workers import Ray, run_jobs
from bagformer_cli.errors import DataError
from bagformer_cli.files import write_text

ray = pytest.importorskip("ray")
# Ray's own threads and sockets are not closed when its interpreter ends: no fault of ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes on this machine, of one core each; this process is joined to them."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    ray.shutdown()
    made.shutdown()


def write_one(job: tuple[str, int]) -> int:
    """What encoding does: skip what is there, else take a while and write a whole file."""
    folder, number = job
    path = Path(folder, f"part-{number:05}")
    if not path.exists():
        Path(folder, f"start-{number}-{os.getpid()}").touch()
        time.sleep(1.0)
        write_text(path, str(number * number))
    return int(path.read_text())


def fail(number: int) -> int:
    if number == 2:
        raise DataError("broken", where="file:2", hint="mend it")
    return number


def test_jobs_come_in_order_and_errors_whole(cluster: Any) -> None:
    assert list(run_jobs(abs, [-3, 4, -5], Ray(cluster.address))) == [3, 4, 5]
    assert list(run_jobs(abs, [], Ray(cluster.address))) == []
    with pytest.raises(DataError) as caught:
        list(run_jobs(fail, range(4), Ray(cluster.address)))
    assert (caught.value.where, caught.value.hint) == ("file:2", "mend it")
    # The thread of Ray's usage statistics would log tracebacks in the middle of later work: Python
    # 3.11 parses code to format them, and fails if another thread parses (an ONNX export does).
    assert not [one for one in enumerate_threads() if "usage" in one.name]


def test_a_node_that_dies_loses_no_job(cluster: Any, tmp_path: Path) -> None:
    victim = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("start-*"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        cluster.remove_node(victim, allow_graceful=False)
        killed.append(len(list(tmp_path.glob("part-*"))))

    killer = Thread(target=kill)
    killer.start()
    jobs = [(str(tmp_path), number) for number in range(16)]
    found = list(run_jobs(write_one, jobs, Ray(cluster.address)))
    killer.join()
    assert found == [number * number for number in range(16)]
    assert len(list(tmp_path.glob("part-*"))) == 16
    assert not list(tmp_path.glob(".*part"))
    assert killed[0] < 16  # it died in the middle


def test_preprocessing_by_ray_is_what_processes_make(cluster: Any, tmp_path: Path) -> None:
    from bagformer_cli.data.store.preprocess import preprocess
    from tests.support.datasets import write_split

    folder = write_split(tmp_path / "data", "valid")
    local = preprocess(folder, tmp_path / "local", encoder=None)
    spread = preprocess(folder, tmp_path / "ray", encoder=None, workers=Ray(cluster.address))
    assert list(spread.split("valid").texts) == list(local.split("valid").texts)
    assert spread.split("valid").image_bytes(1) == local.split("valid").image_bytes(1)


def test_encoding_by_ray_is_what_processes_make(cluster: Any, tmp_path: Path) -> None:
    import pyarrow as pa

    from bagformer_cli.data.catalogue.catalogue import open_catalogue
    from bagformer_cli.index.encode import EncodeOptions, layout_of
    from bagformer_cli.index.encoded import ModelFolder, encode_catalogue, read_rows
    from bagformer_cli.models.checkpoint import load_model
    from tests.support.small_model import saved_model, write_table

    model = saved_model(tmp_path / "model")
    catalogue = open_catalogue(write_table(tmp_path, 7), part_size=3)
    options = EncodeOptions(dtype="float32")
    layout = layout_of(load_model(model), options, catalogue.attributes)
    tables = []
    for name, workers in (("local", 1), ("ray", Ray(cluster.address))):
        done = encode_catalogue(
            catalogue, tmp_path / name, ModelFolder(str(model)), layout, options, workers=workers
        )
        assert (done.rows, done.made) == (7, 3)
        batches = [batch for file in done.files for batch in read_rows(file)]
        tables.append(pa.Table.from_batches([b.replace_schema_metadata(None) for b in batches]))
    assert tables[0]["id"] == tables[1]["id"]
    assert tables[0]["image_count"] == tables[1]["image_count"]
