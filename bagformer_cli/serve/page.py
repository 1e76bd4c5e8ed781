"""The page of the service: one HTML file with its styles and its script."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path


@cache
def page() -> str:
    """Return the page."""
    return (Path(__file__).parent / "page.html").read_text("utf-8")


@cache
def content_policy() -> str:
    """Return the Content-Security-Policy: only the page's own script runs, nothing is loaded.

    A title with a script in it could not run even if it were inserted as HTML.
    """
    script = re.search(r"<script>(.*?)</script>", page(), re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
        "base-uri 'none'"
    )
