"""What a training sets in torch, and that it sets it back."""

from __future__ import annotations

import os

import pytest
import torch

from bagformer_cli.training.arithmetic import training_arithmetic


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_training_leaves_torch_as_it_was(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    def stop() -> None:
        with training_arithmetic(deterministic=deterministic):
            assert torch.get_float32_matmul_precision() == "high"
            assert torch.are_deterministic_algorithms_enabled() is deterministic
            assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) is deterministic
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_the_user_has_set_stays() -> None:
    torch.use_deterministic_algorithms(True, warn_only=False)
    try:
        with training_arithmetic(deterministic=True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
