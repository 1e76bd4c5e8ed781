"""``python -m bagformer_cli``: the same as ``xmr``, also where the package is not installed."""

from __future__ import annotations

import sys

from bagformer_cli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
