"""How well gradients foresee what an optimizer's step does to prior knowledge: `python -m bench.validation DIRECTORY`.

DIRECTORY holds the files of a finished train run (`holdfast show RUN` tells where). From the model that it started
with, SGD and AdamW each take one real step, in float64, on samples of the stage; the change of the mean prior
log-likelihood is predicted and measured along the whole step, a half and a quarter of it. Steps must not be too small:
transformers' RMS norms compute in float32 even in a float64 model, which leaves 2e-9 of noise in the measured change.
"""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from holdfast.config.jobs import Train
from holdfast.config.measurement import Influence
from holdfast.influence import checkpoints
from holdfast.influence.optimizer_step import optimizer_step, order, residuals
from holdfast.influence.samples import SampleEncoder, benchmark_questions, supervised_completions
from holdfast.models.load import load_processor

SAMPLES, QUESTIONS = 32, 8
OPTIMIZERS: dict[str, Any] = {
    "SGD, rate 0.01": lambda model: torch.optim.SGD(_learning(model), lr=1e-2),
    "AdamW, rate 1e-3": lambda model: torch.optim.AdamW(_learning(model), lr=1e-3),
}


def main(directory: Path) -> None:
    train = Train.model_validate_json((directory / "job.json").read_text())
    encoder = SampleEncoder(load_processor(train.start), SAMPLES)
    asked = benchmark_questions(train.data.path, QUESTIONS)
    asked.pop("jigsaw")
    print("| optimizer | share of the step | measured | missed, first order | missed, trapezoid |")
    print("|---|---|---|---|---|")
    for name, make in OPTIMIZERS.items():
        model = checkpoints.load(train, None, Influence()).model.double()
        questions = list(encoder.batches(encoder.samples([*chain(*asked.values())]), model.device))
        [batch] = encoder.batches(encoder.samples(supervised_completions(train, SAMPLES)), model.device)
        start = {name: value.clone() for name, value in checkpoints.weights(model).items()}
        step = optimizer_step(model, batch, make(model))
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.copy_(start.get(parameter_name, parameter))
        found = residuals(model, questions, step)
        for row in found:
            print(f"| {name} | {row.scale:g} | {row.measured:.3e} | {row.first_order:.1e} | {row.trapezoid:.1e} |")
        orders = [order(found, lambda row, kind=kind: getattr(row, kind)) for kind in ("first_order", "trapezoid")]
        print(f"| {name} | order of convergence | | {orders[0]:.2f} | {orders[1]:.2f} |")


def _learning(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m bench.validation DIRECTORY\n\n{__doc__}")
    main(Path(sys.argv[1]))
