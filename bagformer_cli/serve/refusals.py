"""Make answers that refuse a request: JSON with ``error``, ``found``, ``expected``, ``hint``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from bagformer_cli.errors import XmrError, shortened
from bagformer_cli.messages import tr


def refusal(
    status: int,
    message: str,
    *,
    found: str | None = None,
    expected: str | None = None,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Make the answer to a request that is not served.

    Args:
        status: The HTTP status.
        message: Why.
        found: The wrong value.
        expected: The values that would be right.
        hint: The next step for the client.
        headers: Further headers of the answer.
    """
    parts = {"error": message, "found": found, "expected": expected, "hint": hint}
    known = {name: text for name, text in parts.items() if text is not None}
    return JSONResponse(known, status, headers=headers)


def of_error(error: XmrError) -> JSONResponse:
    """Describe a wrong input. Its place, a path of the server, is left out."""
    return refusal(400, error.message, found=error.found, expected=error.expected, hint=error.hint)


def of_parameter(error: Mapping[str, Any]) -> JSONResponse:
    """Describe a wrong parameter.

    Args:
        error: The first error that pydantic found: ``loc``, ``type``, ``input``, ``ctx``, ``msg``.
    """
    name = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "missing":
        return refusal(400, tr("The parameter {name} is missing.", name=name))
    return refusal(
        400,
        tr("The parameter {name} has a wrong value.", name=name),
        found=shortened(error["input"]),
        expected=_expected(error),
    )


def _expected(error: Mapping[str, Any]) -> str:
    """Say which values a parameter takes, from the type of pydantic's error."""
    bound = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return str(bound["expected"]).replace("'", "").replace(" or ", ", ")
        case "greater_than_equal":
            return tr("at least {n}", n=bound["ge"])
        case "less_than_equal":
            return tr("at most {n}", n=bound["le"])
        case "less_than":
            return tr("less than {n}", n=bound["lt"])
        case "string_too_long":
            return tr("at most {n} characters", n=bound["max_length"])
        case "int_parsing" | "int_parsing_size" | "int_from_float":
            return tr("a whole number")
        case "float_parsing" | "finite_number":
            return tr("a number")
        case "bool_parsing":
            return "true, false"
        case _:
            return str(error["msg"])
