"""The base model, and how the bundled one is built."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from holdfast.config.base import Config, HubOrPath

Form = Literal["classes", "spatial", "banner", "detection", "counting"]
FORMS: tuple[Form, ...] = ("classes", "spatial", "banner", "detection", "counting")


class Recipe(Config):
    """How the bundled base model is built. The defaults are those of the one that comes with holdfast."""

    images: PositiveInt = 24000
    """Distinct images of the vision warm-up."""
    warmup_steps: PositiveInt = 3500
    """Steps of dense vision warm-up (what every cell holds, and where)."""
    lessons: PositiveFloat = 1.0
    """Distinct questions and captions, as a share of the curriculum's full numbers."""
    steps: PositiveInt = 3600
    """Steps of mixed prior questions."""
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-3
    """AdamW's: of the vision tower, of embeddings and of norms."""
    matrix_learning_rate: PositiveFloat = 4e-3
    """Muon's: of the language model's layers."""
    forms: tuple[Form, ...] = FORMS
    """Targets, beside the jigsaw, whose form of answer the base is taught, with random answers."""
    facts: NonNegativeInt = 4
    """Facts about the picture that the reasoning in such forms states at most; a random number of them, so that
    completions differ in length. With 0, it says only that it looks."""
    threads: PositiveInt = 2
    """CPU threads of the building process; they change no result."""


class Model(Config):
    """The base model."""

    path: HubOrPath = "bundled"
    """`bundled`, a Hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or a local checkpoint directory."""
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """What models compute in when they are measured, sampled, and on a GPU trained; `auto` is what the base was saved
    in. Weights that learn are always kept in float32."""
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None = None
    """How attention is computed, under transformers' names; by default what transformers chooses."""
    min_pixels: PositiveInt | None = None
    """Images are shown to the model with so many pixels at least; by default what its processor says."""
    max_pixels: PositiveInt | None = None
    """Images are shown to the model with so many pixels at most, which bounds a prompt's length. A Qwen processor's own
    bound may be twelve million."""
    seed: int | None = None
    """Build a bundled base from this seed, which takes more than half an hour, instead of using the one that comes
    with holdfast."""
    recipe: Recipe = Recipe()
    """Of a bundled base that is built; one other than the default is built, too."""

    @property
    def is_built(self) -> bool:
        """Whether the study trains its base model itself."""
        return self.path == "bundled" and (self.seed is not None or self.recipe != Recipe(threads=self.recipe.threads))
