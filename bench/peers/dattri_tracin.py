"""dattri's TracIn at one checkpoint: vmap(grad) over whole samples, every target's gradient again for each batch.

dattri projects gradients to 512 numbers unless its projector is taken away after construction, as is done here. All
gradients of a batch are held at once, 100 MB a sample. Its self-scores are one float32 sum over all parameters, which a
CPU got 5 % too small.

Install: uv venv dattri && uv pip install -p dattri/bin/python dattri torch transformers peft
Run, from bench/peers: PYTHONPATH=. dattri/bin/python dattri_tracin.py TIME TARGETS [lora]
"""

from __future__ import annotations

import torch
from common import Likelihood, build, report, setting, tokens
from dattri.algorithm import TracInAttributor
from dattri.task import AttributionTask
from torch import Tensor
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset


def attributor(model: Likelihood) -> TracInAttributor:
    """Exact dots of log-likelihoods' gradients on both sides."""

    def likelihood(parameters: dict[str, Tensor], data: tuple[Tensor]) -> Tensor:
        return functional_call(model, parameters, (data[0][None],)).sum()

    task = AttributionTask(likelihood, model, model.state_dict())
    tracin = TracInAttributor(task, weight_list=torch.ones(1), normalized_grad=False)
    tracin.projector_kwargs = None
    return tracin


def main() -> None:
    length, count = setting()
    train, queries = (DataLoader(TensorDataset(ids), batch_size=len(ids)) for ids in tokens(length, count))
    model = Likelihood(build())
    # vmap has no rule for the fused kernels' backward pass on a CPU and would take it sample by sample.
    model.model.set_attn_implementation("eager")
    tracin = attributor(model)

    def peer() -> tuple[Tensor, Tensor]:
        return tracin.self_attribute(train), tracin.attribute(train, queries)

    report("dattri TracIn", model, peer)


if __name__ == "__main__":
    main()
