"""What does not fit into memory is one sentence."""

from __future__ import annotations

import pytest
import torch

from holdfast.errors import UserError
from holdfast.stages.out_of_memory import SAMPLES, explained


def test_samples_that_do_not_fit_into_memory_say_what_to_lower() -> None:
    said = r"influence: a batch of samples .* lower influence\.batch_tokens"
    with pytest.raises(UserError, match=said), explained(SAMPLES):
        torch.empty(10**15)
    with pytest.raises(RuntimeError, match="other"), explained(SAMPLES):
        raise RuntimeError("other")
