"""Small float64 models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _exact_norms() -> Iterator[None]:
    """Norms that stay in float64 where transformers' go through float32, so that nothing hides below 1e-7."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaRMSNorm, "forward", forward)
        patch.setattr(Qwen2_5_VLRMSNorm, "forward", forward)
        yield


@pytest.fixture
def vision_model(processor: Any, _exact_norms: None) -> Any:
    """The bundled architecture in float64, all parameters selected, scales and biases away from where they begin."""
    from holdfast.models.tiny.build import build_model

    torch.manual_seed(0)
    return scattered(build_model(processor, hidden=64, layers=2).double())


@pytest.fixture
def text_model(_exact_norms: None) -> Callable[..., Any]:
    """A tiny text model by its name in transformers (`Llama`, `GPTNeoX`), in float64."""
    import transformers

    def build(kind: str, **changes: Any) -> Any:
        torch.manual_seed(0)
        sizes = {
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "initializer_range": 0.2,
            "pad_token_id": 0,
        }
        config = getattr(transformers, f"{kind}Config")(**{**sizes, **changes})
        return scattered(getattr(transformers, f"{kind}ForCausalLM")(config).double())

    return build


def scattered(model: Any) -> Any:
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn_like(value)
    return model
