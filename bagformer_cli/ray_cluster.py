"""Join a Ray cluster, or start one on this machine."""

from __future__ import annotations

import logging
import os

from bagformer_cli.errors import InputError, MissingDependencyError
from bagformer_cli.messages import tr


def join_cluster(address: str | None) -> bool:
    """Connect this process to a Ray cluster, unless it is connected already.

    Ray's usage statistics stay off where the environment does not turn them on: what runs on a
    user's machines is not reported to others, and no thread of the statistics stays in the process.

    Args:
        address: Address of a running cluster; None: the address in ``RAY_ADDRESS``; without it, a
            cluster is started on this machine.

    Returns:
        Whether this call connected the process; ``ray.shutdown`` is then up to the caller.

    Raises:
        InputError: There is no cluster at the address.
        MissingDependencyError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingDependencyError(
            tr("Ray is not installed."), hint='pip install "bagformer-cli[ray]"'
        ) from None
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=None if address else False,
        )
    except ConnectionError as error:
        raise InputError(
            tr("There is no Ray cluster at this address."),
            found=address,
            hint=tr("Start Ray there, or leave out --address to use this machine alone."),
        ) from error
    return True
