"""The entry point of ``xmr``.

It imports nothing but the standard library before :func:`main` runs: Typer and the root command
take a third of a second, in which Ctrl-C must end the process without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130  # the exit code that a shell gives for SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``xmr`` and return its exit code.

    Args:
        arguments: The arguments after ``xmr``; None: ``sys.argv[1:]``.
    """
    try:
        from bagformer_cli.cli.root import run
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
