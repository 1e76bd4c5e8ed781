"""Use xmr as a user does: through its command line, on small catalogues, with limits.

Nothing here imports the package. Acceptance tests that use only this module and the ``xmr``
fixture stay valid when the package's internals change.
"""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, copytree
from typing import Any

from tests.support import warm

DATA = Path(__file__).resolve().parents[1] / "inputs" / "data"
PHOTOS = DATA / "photos"
GIB = 1 << 30
MEMORY = 12 * GIB
"""Limit of the address space for attacks; torch and numba alone reserve some."""

BUG = re.compile(r"bug in xmr|should not have happened|Traceback \(most recent", re.IGNORECASE)
RAW_ENGINE = re.compile(
    r"DataFusion|Arrow error|lance error|LanceError|\.rs:\d+|rust/|SchemaError|No field named",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Ended:
    """How a process ended: ``code`` is negative for a signal, None for a timeout."""

    code: int | None
    out: str
    err: str
    seconds: float

    def json(self) -> Any:
        """Stdout as one JSON value."""
        return json.loads(self.out)


def program(*arguments: object) -> list[str]:
    """Return the command that runs ``xmr`` in a new process."""
    return [sys.executable, "-m", "bagformer_cli.cli.main", *map(str, arguments)]


def environment(**changes: str | None) -> dict[str, str]:
    """Return this process's environment with changes; None removes a variable."""
    import bagformer_cli

    found = dict(os.environ)
    package = str(Path(bagformer_cli.__file__).parents[1])
    found["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, value in changes.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found


def process(
    *arguments: object,
    cwd: Path | None = None,
    timeout: float = 120,
    env: dict[str, str | None] | None = None,
    stdin: str | None = None,
    memory: int | None = None,
    cpu: int | None = None,
    file_size: int | None = None,
    prepare: Callable[[], None] | None = None,
    command: list[str] | None = None,
    code: str = "",
) -> Ended:
    """Run ``xmr`` in a new process group and kill the group at the timeout.

    It is forked from a process that has imported the libraries (``tests/support/warm.py``), unless
    ``stdin``, ``prepare``, ``command``, or a variable that libraries read is given.

    Args:
        arguments: Arguments after ``xmr``.
        cwd: Working directory.
        timeout: Seconds until the process group is killed.
        env: Changes of the environment; None removes a variable.
        stdin: Text for the standard input; None: no input.
        memory: Limit of the address space in bytes (``RLIMIT_AS``).
        cpu: Limit of the processor time in seconds (``RLIMIT_CPU``), which other processes on a
            busy machine do not change. The process is killed beyond.
        file_size: Limit of the size of a written file in bytes (``RLIMIT_FSIZE``).
        prepare: Called in the child before the program starts.
        command: Another command than ``xmr``.
        code: Python code that runs first, in the new process.
    """

    if stdin is None and prepare is None and command is None and set(env or {}) <= {"XMR_CACHE"}:
        sizes = {
            resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: cpu, resource.RLIMIT_FSIZE: file_size,
        }  # fmt: skip
        return _warm(
            arguments, environment(**(env or {})), cwd, timeout,
            {kind: size for kind, size in sizes.items() if size is not None}, code,
        )  # fmt: skip

    def limits() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        if cpu is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        if file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        if prepare is not None:
            prepare()

    began = time.monotonic()
    started = subprocess.Popen(
        command or program(*arguments),
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
        start_new_session=True,
        preexec_fn=limits,
    )
    ended: int | None
    try:
        out, err = started.communicate(stdin, timeout=timeout)
        ended = started.returncode
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)
        out, err = started.communicate()
        ended = None
    return Ended(ended, out, err, time.monotonic() - began)


def _warm(
    arguments: tuple[object, ...],
    variables: dict[str, str],
    cwd: Path | None,
    timeout: float,
    limits: dict[int, int],
    code: str,
) -> Ended:
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = (out.fileno(), err.fileno())
        started = warm.start([str(one) for one in arguments], variables, cwd, files, limits, code)
        ended: int | None
        try:
            ended = started.wait(timeout)
        except subprocess.TimeoutExpired:
            started.kill()
            ended = None
        seconds = time.monotonic() - began
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "backslashreplace").replace("\r\n", "\n"))
    return Ended(ended, *texts, seconds)


def warm_seconds(cwd: Path) -> float:
    """Measure how long a command that only starts takes here (two of them: the second counts)."""
    process("bags", "红", "--json", cwd=cwd)
    return process("bags", "红", "--json", cwd=cwd).seconds


def assert_no_bug(run: Any) -> None:
    """Assert that an ended command neither calls itself a bug nor shows a traceback."""
    assert not BUG.search(run.err), run.err
    assert not BUG.search(run.out), run.out


def assert_refused(run: Any, *words: str) -> None:
    """Assert that a command ended as a user's mistake: exit 2, one block that has the words."""
    assert_no_bug(run)
    assert run.code == 2, (run.code, run.out, run.err)
    assert not RAW_ENGINE.search(run.err), run.err
    for word in words:
        assert word in run.err, (word, run.err)


def case_folder(name: str, to: Path) -> Path:
    """Copy a case of ``tests/inputs/data`` and the ten photos p0.jpg … p9.jpg into a folder."""
    to.mkdir(parents=True, exist_ok=True)
    for photo in PHOTOS.iterdir():
        copy(photo, to / photo.name)
    if name:
        copytree(DATA / name, to, dirs_exist_ok=True)
    return to


def imported(xmr: Callable[..., Any], table: Path, *options: object) -> tuple[Any, list[str]]:
    """Run ``data import`` into ``imported`` next to a table; return its end and all titles."""
    out = table.parent / "imported"
    run = xmr("data", "import", table, "--json", "--out", out, *options)
    titles = [
        json.loads(line)["query_text"]
        for file in sorted(out.glob("MR_*_queries.jsonl"))
        for line in file.read_text("utf-8").splitlines()
    ]
    return run, titles


def is_named(texts: Iterable[str], line: int, identity: str) -> bool:
    """Whether one of the texts names a row by its line (``file:7``, ``line 7``) or its id."""
    pattern = re.compile(rf"(:|line |lines |-|第 ?){line}(?!\d)|(?<!\w){re.escape(identity)}(?!\w)")
    return any(pattern.search(text) for text in texts)


class Shop:
    """A folder with photos p0.jpg … p9.jpg, a tiny model, tables and one index.

    Args:
        xmr: The fixture that runs ``xmr`` in this process.
        model: A model folder.
        folder: Where everything lies.
    """

    def __init__(self, xmr: Callable[..., Any], model: Path, folder: Path) -> None:
        self.xmr, self.model, self.folder = xmr, model, folder
        self.index: str | Path = folder / "index"
        case_folder("", folder)

    def case(self, name: str) -> Path:
        """Copy a case beside the photos."""
        return case_folder(name, self.folder)

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a table beside the photos."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def build(self, table: Path, *options: object) -> Any:
        """Build the index; return how the command ended."""
        arguments = ["--checkpoint", self.model, "--json", *options]
        return self.xmr("index", "build", table, self.index, *arguments)

    def add(self, table: Path, *options: object) -> Any:
        """Add a table to the index; return how the command ended."""
        return self.xmr("index", "add", table, self.index, "--json", *options)

    def search(self, *arguments: object) -> Any:
        """Search the index; return how the command ended."""
        if str(self.index).startswith("qdrant:"):
            gc.collect()  # a local folder stays locked until its last client is gone
        return self.xmr("search", "商品", "--index", self.index, "-k", 1000, "--json", *arguments)

    def products(self, where: str | None = None) -> dict[str, dict[str, Any]]:
        """Return all products of the index, or those that match a filter, by id."""
        run = self.search(*(() if where is None else ("--where", where)))
        assert run.code == 0, run.err
        return {hit["id"]: hit for hit in run.json()["results"][0]["hits"]}

    def built(self, table: Path, *options: object) -> tuple[dict[str, dict[str, Any]], list[str]]:
        """Build the index, which must succeed; return its products and the rows left out."""
        run = self.build(table, *options)
        assert_no_bug(run)
        assert run.code == 0, run.err
        return self.products(), run.json()["skipped"]
