"""Checkpoints in and out: any vision-language or text model that transformers' auto classes load, adapters included."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import find_adapter_config_file

from holdfast.config.refs import ModelRef
from holdfast.data.chat import reads_images
from holdfast.errors import UserError, reason
from holdfast.models.checkpoint_check import (
    Misfits,
    require_finite,
    require_fit,
    require_names,
    require_settings,
    require_whole,
)
from holdfast.models.end_of_turn import end_turns, stop_ids
from holdfast.models.text_processor import TextProcessor

WORDS = "yes12"
"""What any tokenizer can write."""
PLACEHOLDERS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The GPU if there is one, unless the study says otherwise.

    Raises:
        UserError: the study asks for a GPU and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device: cuda, but this machine has no GPU that torch can use; set it to auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def load_config(ref: ModelRef) -> PreTrainedConfig:
    """The checkpoint's configuration.

    Raises:
        UserError: there is no checkpoint, or it is of a model that writes no text.
    """
    path = Path(ref.path)
    _refuse_adapter(ref)
    if path.is_dir() and not (path / "config.json").is_file():
        raise UserError(f"model.path: {ref.path} holds no config.json, so it is no checkpoint; name its directory")
    if path.is_dir():
        require_settings(path)
    try:
        config = AutoConfig.from_pretrained(ref.path, revision=ref.revision, trust_remote_code=False)
    except Exception as error:  # whatever stands in the way of reading a user's files
        strange = f"{ref.path} is neither a checkpoint directory nor a model the Hub gives out"
        if path.is_dir():
            strange = f"the config.json of {ref.path} is of no model that transformers knows"
        raise UserError(f"model.path: {strange} ({reason(error)}); name one that is, or `bundled`") from error
    if not sees(config) and not _writes(config):
        raise UserError(
            f"model.path: {ref.path} is a {config.model_type} model, which answers no questions; "
            "name a vision-language model such as Qwen/Qwen2.5-VL-3B-Instruct, or a text model that is chatted with"
        )
    if path.is_dir():
        require_whole(path)
    return config


def sees(config: PreTrainedConfig) -> bool:
    """Whether the model reads images beside text."""
    return config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def _writes(config: PreTrainedConfig) -> bool:
    """Whether it writes text from left to right; encoders such as BERT only could."""
    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def auto_class(config: PreTrainedConfig) -> Any:
    """transformers' class that makes and loads such a model."""
    return AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM


def _refuse_adapter(ref: ModelRef) -> None:
    """transformers would apply it, and what it was trained on need not be what lies beside it."""
    try:
        adapter = find_adapter_config_file(ref.path, revision=ref.revision)
    except (OSError, ValueError):  # reading the configuration tells why
        return
    if adapter is not None:
        raise UserError(
            f"model.path: {ref.path} holds a LoRA adapter ({Path(adapter).name}); merge it first and name the result"
        )


def load_processor(ref: ModelRef) -> Any:
    """The checkpoint's processor: it pads on the left as generation needs, and its EOS ends the assistant's turn.

    Of a model of text it is a `TextProcessor`.

    Raises:
        UserError: it cannot be read, takes no images where the model does, knows no words, or has no chat template.
    """
    source = ref.whole
    processor = _read_processor(source)
    tokenizer: Any = getattr(processor, "tokenizer", None)
    if tokenizer is None or WORDS not in _written_back(tokenizer).replace(" ", ""):
        raise UserError(f"model.path: the tokenizer of {source.path} is missing or reads no words; save it again")
    for name in ("pad_token", "eos_token"):
        if getattr(tokenizer, f"{name}_id") is None:
            raise UserError(f"model.path: the tokenizer of {source.path} has no {name}; set one and save it again")
    # Older checkpoints keep it in tokenizer_config.json, where processors do not look.
    processor.chat_template = processor.chat_template or tokenizer.chat_template
    if not processor.chat_template:
        raise UserError(
            f"model.path: {source.path} has no chat template (chat_template.jinja); save the processor with one"
        )
    bound_pixels(processor, source)
    tokenizer.padding_side = "left"
    end_turns(processor, stop_ids(_generation(source)))
    return processor


def _read_processor(ref: ModelRef) -> Any:
    given: Any = {"revision": ref.revision, "trust_remote_code": False}
    images = sees(load_config(ref))
    try:
        if not images:
            return TextProcessor(AutoTokenizer.from_pretrained(ref.path, **given))
        processor = AutoProcessor.from_pretrained(ref.path, **given)
    except Exception as error:  # whatever stands in the way of reading a user's files
        missing = "processor" if images else "tokenizer"
        raise UserError(
            f"model.path: {ref.path} has no {missing} ({reason(error)}); save one beside the model"
        ) from error
    if not isinstance(processor, ProcessorMixin):
        raise UserError(f"model.path: {ref.path} has a tokenizer and no image processor; save its processor beside it")
    return processor


def bound_pixels(processor: Any, ref: ModelRef) -> None:
    """Where the study bounds images; what is saved of the processor later has the bounds in it.

    Raises:
        UserError: the processor's images have sizes of their own.
    """
    wanted = {"shortest_edge": ref.min_pixels, "longest_edge": ref.max_pixels}
    given = {edge: pixels for edge, pixels in wanted.items() if pixels is not None}
    if not given:
        return
    if not reads_images(processor):
        raise UserError(
            f"model.{'min' if ref.max_pixels is None else 'max'}_pixels: {ref.path} reads text alone; leave it out"
        )
    images = processor.image_processor
    if not bounds_pixels(processor):
        raise UserError(
            f"model.{'min' if ref.max_pixels is None else 'max'}_pixels: {ref.path} shows images in sizes of its own "
            f"({type(images).__name__}); leave it out and bound the images themselves (images.size, target.public.size)"
        )
    sizes = {edge: given.get(edge) or images.size[edge] for edge in wanted}
    if sizes["shortest_edge"] > sizes["longest_edge"]:
        raise UserError(
            f"model.min_pixels: {sizes['shortest_edge']} is more than the most, {sizes['longest_edge']}; lower it"
        )
    images.size = type(images.size)(**sizes)


def bounds_pixels(processor: Any) -> bool:
    """Whether a processor of images shows each in a size of its own, between two numbers of pixels: Qwen's."""
    return type(processor.image_processor).__name__.startswith("Qwen2VLImageProcessor")


def _written_back(tokenizer: Any) -> str:
    return tokenizer.decode(tokenizer(WORDS, add_special_tokens=False)["input_ids"])


def _generation(ref: ModelRef) -> GenerationConfig:
    """As the model will have it: from its own file, or else from the model's configuration."""
    try:
        return GenerationConfig.from_pretrained(ref.path, revision=ref.revision or "main")
    except OSError:
        return GenerationConfig.from_model_config(load_config(ref))


def load_model(ref: ModelRef, dtype: str = "float32", where: torch.device | None = None) -> Any:
    """The checkpoint in evaluation mode; an adapter is merged into the model it belongs on.

    Raises:
        UserError: the checkpoint's weights do not fit the model, or are not all there, or not all finite.
    """
    if ref.adapter_of is not None:
        return _merged(load_model(ref.adapter_of, dtype, where), ref)
    model = fitting(ref, dtype)
    require_finite(ref.path, model.state_dict().items())
    model.generation_config.suppress_tokens = placeholder_ids(model.config) or None
    return model.to(where or torch.device("cpu")).eval()


def fitting(ref: ModelRef, dtype: str, **arguments: Any) -> Any:
    """The model with the checkpoint's weights, all of them and no others; `arguments` are `from_pretrained`'s.

    Raises:
        UserError: weights are missing, unexpected or of another shape.
    """
    config = load_config(ref)
    given: dict[str, Any] = {"revision": ref.revision, "dtype": dtype, "trust_remote_code": False}
    if ref.attention is not None:
        given["attn_implementation"] = ref.attention
    try:
        loaded: Any = auto_class(config).from_pretrained(
            ref.path,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=True,
            **given,
            **arguments,
        )
    except (ImportError, ValueError) as error:
        if ref.attention is None or "ttention" not in str(error):
            raise
        raise UserError(
            f"model.attention: {ref.attention} is not to be had here ({reason(error)}); leave it out or set it to sdpa"
        ) from error
    model, found = loaded
    require_fit(ref.path, found)
    return model


def _merged(model: Any, ref: ModelRef) -> Any:
    suppressed = model.generation_config.suppress_tokens
    adapted = with_adapter(model, ref)
    merged = adapted.merge_and_unload()
    merged.generation_config.suppress_tokens = suppressed
    return merged.eval()


def with_adapter(model: Any, ref: ModelRef, *, learns: bool = False) -> Any:
    """The model with a checkpoint's adapter beside it.

    Raises:
        UserError: the adapter's weights are not just those that its configuration names, or not all finite.
    """
    adapted: Any = PeftModel.from_pretrained(model, ref.path, is_trainable=learns)
    wanted = get_peft_model_state_dict(adapted)
    with safe_open(Path(ref.path) / "adapter_model.safetensors", "pt") as opened:
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    strange = [name for name, value in wanted.items() if name in shapes and shapes[name] != tuple(value.shape)]
    misfits = Misfits(sorted(wanted.keys() - shapes.keys()), sorted(shapes.keys() - wanted.keys()), sorted(strange))
    require_names(ref.path, misfits)
    require_finite(ref.path, wanted.items())
    return adapted


def placeholder_ids(config: PreTrainedConfig) -> list[int]:
    """Tokens that stand for images: a completion that holds one crashes the next forward pass."""
    ids = (getattr(config, name, None) for name in PLACEHOLDERS)
    return sorted({token for token in ids if token is not None})


def without_placeholders(config: PreTrainedConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a generation that suppress the placeholders beside what they suppress themselves."""
    own = settings.get("suppress_tokens") or ()
    return {**settings, "suppress_tokens": sorted({*placeholder_ids(config), *own}) or None}


def save_checkpoint(model: Any, processor: Any, path: Path, dtype: torch.dtype | None = None) -> None:
    """Write safetensors, configuration and processor (of a PEFT model: its adapter), complete or not at all.

    `dtype` is that of the weights in the files, by default the model's.
    """
    partial = path.with_name(path.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with stored_as(dtype, model):
        model.save_pretrained(partial, safe_serialization=True)
    processor.save_pretrained(partial)
    _same_everywhere(partial / "adapter_config.json")
    os.replace(partial, path)


@contextmanager
def stored_as(dtype: torch.dtype | None, model: Any) -> Iterator[None]:
    """Within, the parameters are copies in another precision."""
    kept = [(one, one.data) for one in model.parameters() if dtype is not None and one.dtype != dtype]
    try:
        for parameter, value in kept:
            parameter.data = value.to(dtype)
        yield
    finally:
        for parameter, value in kept:
            parameter.data = value


def _same_everywhere(adapter_config: Path) -> None:
    """Where the adapter's base lay on this machine, and the order of a set in this process, say nothing elsewhere and
    would change the adapter's digest."""
    if not adapter_config.is_file():
        return
    content = json.loads(adapter_config.read_text())
    if Path(content.get("base_model_name_or_path") or "").is_dir():
        content["base_model_name_or_path"] = None
    for name in ("target_modules", "exclude_modules"):
        if isinstance(content.get(name), list):
            content[name].sort()
    adapter_config.write_text(json.dumps(content, indent=2))
