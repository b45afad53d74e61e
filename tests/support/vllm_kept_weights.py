"""For the workers of `vllm serve` on a machine without a GPU: their weights can be changed, as in vllm_stage.py."""

from vllm_stage import keep_weights

from holdfast.training.vllm_worker import WeightsFromFiles

keep_weights()


class Kept(WeightsFromFiles):
    """Imported before a model is loaded."""
