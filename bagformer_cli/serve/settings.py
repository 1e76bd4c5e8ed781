"""The limits of the service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceLimits:
    """Bounds on what a client can make the service do.

    Attributes:
        upload_bytes: Largest request body, in bytes.
        seconds: Longest time for a request's body to arrive, and for its answer.
        batch: Queries that are searched together.
        decoders: Images that are decoded at once; the largest ones take 0.7 GB each meanwhile.
        waiting: Requests that may wait for the model; more are refused with status 503.
        rate: Requests per second and client address; 0: no limit. Short bursts of four times as
            many pass.
        title_characters: Longest query, in characters.
    """

    upload_bytes: int = 10 << 20
    seconds: float = 20.0
    batch: int = 32
    decoders: int = 2
    waiting: int = 256
    rate: float = 0.0
    title_characters: int = 1000
