"""What a vLLM server's workers gain by `--worker-extension-cls holdfast.training.vllm_worker.WeightsFromFiles`.

It is the way in which weights reach an engine in the training's process. After vLLM's own `reload_weights` (0.31, on a
CPU, where weights are packed) log-probabilities were 0.01 nats from the trainer's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

CLASS = "holdfast.training.vllm_worker.WeightsFromFiles"
READY, LOAD = "holdfast_ready", "holdfast_load"
"""Methods, as a server is asked for them."""


class WeightsFromFiles:
    """Mixed into vLLM's worker."""

    model_runner: Any

    def holdfast_ready(self) -> list[str]:
        """Says that it is here."""
        return [CLASS]

    def holdfast_load(self, directory: str) -> list[str]:
        """Take the weights of a directory's model.safetensors, under the names of a checkpoint."""
        with safe_open(Path(directory) / "model.safetensors", "pt") as file:
            names = list(file.keys())
            for name in names:
                self.model_runner.model.load_weights([(name, file.get_tensor(name))])
        return names
