"""The public benchmarks by name, and what of a configuration can be refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from holdfast.benchmarks.public import (
    arc,
    docvqa,
    gpqa,
    gsm8k,
    ifeval,
    math500,
    mme,
    mmlu_pro,
    mmmu,
    mmstar,
    pope,
    refcoco,
)
from holdfast.benchmarks.public.protocol import Source
from holdfast.config.prior import PublicPrior
from holdfast.errors import UserError

_MODULES = (refcoco, docvqa, mme, mmstar, mmmu, pope, gsm8k, math500, mmlu_pro, arc, ifeval, gpqa)
MODULES: dict[str, ModuleType] = {name: module for module in _MODULES for name in module.SOURCES}
"""What each of them has is in `protocol.PublicBenchmark`."""


def source_of(benchmark: PublicPrior) -> Source:
    """Where its rows are, as the user has it and else as the authors do. UserError where no revision is known."""
    own: Source = MODULES[benchmark.benchmark].SOURCES[benchmark.benchmark]
    local = benchmark.data is not None and Path(benchmark.data).is_dir()
    revision = benchmark.revision or (own.revision if benchmark.data in (None, own.id) else None)
    name = benchmark.data or own.id
    if revision is None and not local:
        raise UserError(
            f"prior.{benchmark.name}.revision: name the commit of {name} that you mean (on its page, below Files); "
            "without one, another day may ask other questions."
        )
    config = benchmark.config or (None if local else own.config)
    return own._replace(id=name, revision=revision, config=config, split=benchmark.split or own.split)


def check(benchmark: PublicPrior) -> None:
    """Refuse what can be seen without reading data: no revision, no form of boxes, a library that is missing."""
    source = source_of(benchmark)
    module = MODULES[benchmark.benchmark]
    if hasattr(module, "require"):
        module.require()
    boxed = module is refcoco
    if boxed and benchmark.boxes is None:
        raise UserError(
            f"prior.{benchmark.name}.boxes: say how your model writes boxes: qwen2.5-vl (pixels of the resized image), "
            "qwen3-vl or qwen2-vl (thousandths), or unit."
        )
    if benchmark.boxes is not None and not boxed:
        raise UserError(f"prior.{benchmark.name}.boxes: {benchmark.benchmark} asks for no boxes; leave this out.")
    if benchmark.shots and not source.examples:
        raise UserError(f"prior.{benchmark.name}.shots: {benchmark.benchmark} has no solved examples; leave this out.")
