"""A stage's process on a machine without a GPU, as `python -m holdfast JOB OUT` is one on a machine with one.

vLLM's CPU backend packs weights away as it loads them, so none could be changed; here they stay.
"""

import os
import sys
from typing import Any

SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


def keep_weights() -> None:
    """Before vLLM loads a model."""
    import torch
    from vllm.model_executor.layers import utils

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain


if __name__ == "__main__":
    os.environ.update(SETTINGS)
    keep_weights()
    from holdfast.stages.process import run_job

    run_job(sys.argv[1], sys.argv[2])
