"""captum's TracInCP with per-sample gradients of linear modules; norms need a call of their own.

Install: uv venv captum && uv pip install -p captum/bin/python captum torch transformers peft
Run, from bench/peers: PYTHONPATH=. captum/bin/python captum_tracin.py TIME TARGETS [lora]
"""

from __future__ import annotations

import torch
from captum.influence import TracInCP
from common import Likelihood, build, report, setting, tokens, tracked
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


def total(predicted: Tensor, labels: Tensor) -> Tensor:
    return predicted.sum()


total.reduction = "sum"


def main() -> None:
    length, count = setting()
    train, queries = tokens(length, count)
    model = Likelihood(build())
    # captum puts hooks on the layers' inputs, which must require gradients.
    model.model.get_input_embeddings().register_forward_hook(lambda *call: call[2].requires_grad_())
    layers = [f"model.{name}" for name in tracked(model.model)]
    data = DataLoader(TensorDataset(train, torch.zeros(len(train))), batch_size=len(train))
    tracin = TracInCP(
        model,
        data,
        ["now"],
        lambda *_: 1.0,
        layers=layers,
        loss_fn=total,
        batch_size=len(train),
        sample_wise_grads_per_batch=True,
    )

    def peer() -> tuple[Tensor, Tensor]:
        dots = tracin.influence((queries, torch.zeros(len(queries))))
        return tracin.self_influence(), dots.T

    report("captum TracInCP", model, peer)


if __name__ == "__main__":
    main()
