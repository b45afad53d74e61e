"""What a training needs, from arithmetic on the model's shape: memory, disk, and operations.

Weights, gradients, AdamW's moments and the KL's reference are exact. Activations are those that autograd keeps of a
layer of the Llama family, with attention that keeps no scores; docs/models.md has what they were held against.
"""

from __future__ import annotations

from typing import NamedTuple

from holdfast.models.shape import Shape

FLOAT32, HALF = 4, 2
GB = 1e9
MOMENTS = {"sgd": 0, "adafactor": 0, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2, "lion": 4}
"""Bytes of an optimizer's state for a parameter that learns; AdamW's two moments take 8."""
HEAD_TILE = 1024
"""Tokens whose logits TRL makes at once."""
TRACED_LOGIT = 16
"""Bytes of a logit in a pass of influence, which makes all at once: at the peak itself, in float32 and as gradients."""
RESUMABLE = 3
"""Checkpoints to go on from that lie on the disk together: two are kept, and a third is written before one goes."""


class Precision(NamedTuple):
    """Bytes of a number."""

    weights: int
    """Of weights beside an adapter, or of all of them."""
    compute: int

    @property
    def casts(self) -> bool:
        """Whether a half-precision copy of the weights lies beside them."""
        return self.compute < self.weights


class Batch(NamedTuple):
    """What goes through the model at once."""

    rows: int
    """Samples of a backward pass."""
    prompt: int
    """Tokens of the longest, images included."""
    completion: int
    patches: int = 0
    """Of a prompt's images, as the tower sees them."""
    generated: int = 0
    """Completions that are generated at the same time; 0 where none are."""

    @property
    def tokens(self) -> int:
        return self.rows * (self.prompt + self.completion)


class Method(NamedTuple):
    """What of a stage's settings takes memory."""

    optimizer: str = "adamw"
    checkpointing: bool = False
    reference: bool = False
    """A frozen copy of the model for the KL; an adapter is switched off instead."""
    copies: bool = False
    """A frozen copy of the model beside an adapter too, for a penalty of ours."""
    anchors: int = 0
    """Copies of what learns: the weights that a penalty pulls to, and how much each counts."""
    eager: bool = False
    """Attention that keeps its scores."""
    buckets: bool = False
    """Gradients have copies in which ranks add them up."""
    parts: int = 1
    """Ranks that hold a part each of weights, gradients and moments."""
    deepspeed: bool = False
    """These are DeepSpeed's: what learns is in float32 beside what computes, and all of it is gathered to sample."""
    vllm: int = 0
    """Bytes of the card that vLLM takes in the training's process."""
    sleeps: bool = False
    """It gives them back while a step computes."""


class Memory(NamedTuple):
    """Bytes on the device that trains."""

    weights: int
    gradients: int
    optimizer: int
    copies: int
    """Half-precision ones that mixed precision computes with."""
    reference: int
    activations: int
    head: int
    """The output layer's: hidden states, a tile of logits, and the gradient of its weight."""
    generation: int
    """Of transformers, or vLLM's share of the card."""
    vllm: int = 0
    """That share, while a step computes too."""
    measuring: int = 0
    """While validation questions are asked along the way: a batch of these, and a copy in half precision of what learns
    in float32, or of a model in parts the first rank's copy of all of it."""

    @property
    def fixed(self) -> int:
        """Whatever the batch."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.vllm

    @property
    def step(self) -> int:
        """Of a step: where completions are generated there are neither gradients nor activations."""
        return max(self.fixed + self.copies + self.activations + self.head, self._between + self.generation)

    @property
    def total(self) -> int:
        """At most at any time."""
        return max(self.step, self._between + self.vllm + self.measuring)

    @property
    def _between(self) -> int:
        return self.weights + self.optimizer + self.reference


class Tracing(NamedTuple):
    """Bytes for measuring samples against benchmarks."""

    weights: int
    held: int
    """Of the device: gradients that samples are held against, as far as they lie there."""
    host: int
    """The same in the host's memory."""
    activations: int
    head: int
    """Logits of all completions of a batch, and their gradients."""

    @property
    def fixed(self) -> int:
        """Of the device, whatever the batch."""
        return self.weights + self.held

    @property
    def total(self) -> int:
        """Of the device, with the largest batch."""
        return self.fixed + self.activations + self.head


class Pass(NamedTuple):
    """A batch through the model without checkpointing, whose logits are made all at once."""

    sample: Batch
    """The longest one alone."""
    tokens: int
    """Of the largest batch."""
    size: int
    """Bytes of a number."""
    eager: bool = False


def pass_memory(shape: Shape, one: Pass) -> tuple[int, int]:
    """Bytes of activations and of logits; `shape` has the layers only that gradients go through."""
    sample = one.sample
    alone = _activations(shape, one.size, sample, Method(eager=one.eager))
    logits = (sample.completion + 1) * shape.vocabulary * TRACED_LOGIT
    return alone * one.tokens // sample.tokens, logits * one.tokens // sample.tokens


def memory(shape: Shape, precision: Precision, batch: Batch, method: Method) -> Memory:
    """What a step takes at its peak."""
    beneath = shape.parameters - shape.adapter
    completions = batch.rows * batch.completion
    head_learns = shape.learning > shape.parameters / 2
    weights = (beneath * precision.weights + shape.adapter * FLOAT32) // method.parts
    copies = shape.learning * precision.compute if precision.casts else 0
    gathered = sampling = _gathered(shape, precision.compute) if method.parts > 1 else 0
    if method.deepspeed:
        sampling = shape.parameters * precision.compute
        weights = (sampling + shape.learning * FLOAT32) // method.parts
    return Memory(
        weights=weights,
        gradients=shape.learning * FLOAT32 * (2 if method.buckets else 1) // method.parts,
        optimizer=shape.learning * MOMENTS.get(method.optimizer, 8) // method.parts,
        copies=gathered or copies,
        reference=(beneath * precision.compute if method.reference and not shape.adapter else 0)
        + (beneath * precision.weights if method.copies else 0)
        + method.anchors * shape.learning * FLOAT32,
        activations=_activations(shape, precision.compute, batch, method),
        head=2 * completions * shape.hidden * FLOAT32
        + min(completions, HEAD_TILE) * shape.vocabulary * FLOAT32
        + (shape.vocabulary * shape.hidden * FLOAT32 if head_learns else 0),
        generation=method.vllm or batch.generated * generated_row(shape, precision.compute, batch) + sampling,
        vllm=0 if method.sleeps else method.vllm,
    )


def _gathered(shape: Shape, size: int) -> int:
    """Of a model in parts, what every rank has whole: all but the layers, of these one and the next, and the gradients
    of the largest part before and while they are added up.
    """
    layer, table = shape.dense // shape.layers, shape.vocabulary * shape.hidden
    return (shape.parameters - shape.dense + 2 * layer) * size + max(layer, table) * (size + FLOAT32)


def _activations(shape: Shape, size: int, batch: Batch, method: Method) -> int:
    """Of all layers, or with checkpointing every layer's input and one layer's own."""
    layer = batch.tokens * (
        size * (6 * shape.hidden + 4 * shape.key_values + 4 * shape.intermediate) + 4 * FLOAT32 * shape.hidden
    )
    if shape.adapter:
        # Inputs of frozen layers are not kept for weights' gradients, but an adapter casts its own to float32.
        layer += batch.tokens * FLOAT32 * (3 * shape.hidden + shape.intermediate)
    if method.eager:
        layer += 2 * size * batch.rows * shape.heads * (batch.prompt + batch.completion) ** 2
    inputs = batch.tokens * shape.hidden * size
    text = shape.layers * inputs + layer if method.checkpointing else shape.layers * layer
    seen = batch.rows * batch.patches
    tower = seen * (size * (6 * shape.vision_hidden + 4 * shape.vision_intermediate) + 16 * shape.vision_hidden)
    if not shape.vision_learns:
        return text + tower
    depth = shape.vision_layers
    return text + (depth * seen * shape.vision_hidden * size + tower if method.checkpointing else depth * tower)


def generated_row(shape: Shape, size: int, batch: Batch) -> int:
    """Keys and values of all its tokens, and its logits with two copies for sampling."""
    cache = (batch.prompt + batch.completion) * shape.layers * 2 * shape.key_values * size
    return cache + batch.prompt * read_token(shape, size) + 3 * shape.vocabulary * FLOAT32


def read_token(shape: Shape, size: int) -> int:
    """Of a token that is read without gradients, in the one layer that computes."""
    return (2 * shape.intermediate + 4 * shape.hidden) * size


class Disk(NamedTuple):
    """Bytes that a training leaves, and takes beside that while it runs."""

    kept: int
    running: int


def disk(shape: Shape, kept_steps: int, kept_size: int, moments: bool, in_parts: bool = False) -> Disk:
    """`kept_size` is the bytes of a kept number: of an adapter, or of the whole model.

    Of a model in parts, accelerate writes all weights once more to go on from.
    """
    whole = (shape.adapter or shape.parameters) * kept_size
    resumable = (shape.adapter or shape.parameters) * FLOAT32 * (2 if in_parts else 1) + shape.learning * 8
    left = kept_steps * (whole + (shape.learning * FLOAT32 if moments else 0))
    return Disk(left, min(kept_steps - 1, RESUMABLE) * resumable)


def ledger_disk(shape: Shape, steps: int, gradients: int) -> int:
    """Bytes that a ledger takes while it runs: weights and both moments after every step, and gradients at nodes."""
    return shape.learning * FLOAT32 * (3 * (steps + 1) + gradients)


def operations(shape: Shape, batch: Batch, method: Method) -> int:
    """Floating-point operations of one forward and backward pass, and of one more forward for a reference."""
    text, seen = forward(shape, batch)
    # Weights beneath an adapter get no gradient, activations do.
    backward = (1 if shape.adapter else 2) + method.checkpointing
    return text * (1 + backward + method.reference) + seen * (3 if shape.vision_learns else 1)


def forward(shape: Shape, batch: Batch) -> tuple[int, int]:
    """Of a forward pass, operations of the text and of the tower."""
    length = batch.prompt + batch.completion
    text = batch.tokens * (2 * shape.dense + 2 * shape.layers * shape.hidden * length)
    text += 2 * batch.rows * batch.completion * shape.vocabulary * shape.hidden
    return text, 2 * batch.rows * batch.patches * shape.vision


def gb(size: int) -> str:
    """For a person."""
    return f"{size / GB:,.0f} GB" if size >= 10 * GB else f"{size / GB:,.1f} GB"
