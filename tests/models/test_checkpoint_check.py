"""A checkpoint that does not fit, is not whole or holds no numbers is refused in one sentence, not drawn at random."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from holdfast.config.jobs import Check
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from holdfast.errors import UserError
from holdfast.models.load import load_model, load_processor
from holdfast.models.lora import learning
from holdfast.stages.preflight import check

Weights = dict[str, torch.Tensor]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HEAD = "lm_head.weight"


@pytest.fixture
def base(tiny_model: ModelRef, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoiled."""
    return Path(shutil.copytree(tiny_model.path, tmp_path / "base"))


def ref(place: Path) -> ModelRef:
    return ModelRef(path=str(place), digest="")


def checked(place: Path, data: DataRef) -> None:
    arm = {"method": "sft", "source": "answers", "trainer": {"max_steps": 1}}
    check(Check(study=Study(name="s", arms={"a": [arm]}, model={"path": str(place)}), data=data))


def refusal(place: Path, data: DataRef) -> str:
    """What the check says, which must be one short sentence that names the checkpoint."""
    with pytest.raises(UserError) as refused:
        checked(place, data)
    sentence = str(refused.value)
    assert sentence.startswith("model.path: ")
    assert str(place) in sentence
    assert "\n" not in sentence
    assert len(sentence.replace(str(place), "PLACE")) < 250
    return sentence


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def changed(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: {name: change(value) if part in name else value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without("layers.0.mlp"), "(3 missing, first model.language_model.layers.0.mlp.down_proj.weight)"),
        (without("embed_tokens"), "(2 missing, first lm_head.weight)"),
        (lambda weights: {**weights, "value_head.weight": torch.zeros(2)}, "(1 unexpected, first value_head.weight)"),
        (changed("q_proj.weight", lambda w: w[:, 1:].clone()), "(1 mismatched, first model.language_model.layers.0"),
        (
            lambda weights: {f"_orig_mod.{name}": value for name, value in weights.items()},
            "saved from a compiled model",
        ),
        (lambda weights: {f"module.{name}": value for name, value in weights.items()}, "remove the prefix"),
        (changed("q_proj", lambda w: w * torch.nan), "2 weights of"),
        (changed("o_proj", lambda w: w.half() / 0), "1 weights of"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_check_and_load(
    base: Path, tiny_data: DataRef, spoil: Callable[[Weights], Weights], words: str
) -> None:
    file = base / "model.safetensors"
    save_file(spoil(load_file(file)), file, {"format": "pt"})
    assert words in refusal(base, tiny_data)
    with pytest.raises(UserError, match=r"model\.path: "):
        load_model(ref(base))


def test_tied_heads_and_computed_buffers_are_allowed(base: Path, tiny_data: DataRef) -> None:
    file = base / "model.safetensors"
    weights = load_file(file)
    assert HEAD not in weights
    embedding = next(value for name, value in weights.items() if "embed_tokens" in name)
    more = {HEAD: embedding.clone(), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(weights | more, file, {"format": "pt"})
    checked(base, tiny_data)
    assert torch.equal(load_model(ref(base)).lm_head.weight, embedding)


def _shards(place: Path, kept: int) -> None:
    weights = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    names = sorted(weights)
    files = {name: f"model-{1 + place % 2:05d}-of-00002.safetensors" for place, name in enumerate(names)}
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    for file in sorted(set(files.values()))[:kept]:
        save_file({name: weights[name] for name in names if files[name] == file}, place / file, {"format": "pt"})


def _cut(place: Path) -> None:
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])


def _pickled(place: Path) -> None:
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()


def _written(name: str, text: str) -> Callable[[Path], Any]:
    return lambda place: (place / name).write_text(text)


def _settings(name: str, **changed: Any) -> Callable[[Path], Any]:
    """Some of a file's settings; an index that is to be read takes the place of the weights."""

    def write(place: Path) -> None:
        file = place / name
        if "weight_map" in changed:
            (place / "model.safetensors").unlink()
        file.write_text(json.dumps({**(json.loads(file.read_text()) if file.is_file() else {}), **changed}))

    return write


FILES: list[tuple[Callable[[Path], Any], str]] = [
    (_written("adapter_config.json", "{}"), "merge it first"),
    (_written("model.safetensors", POINTER), "is a pointer of Git LFS; fetch the file itself with `git lfs pull`"),
    (_written("tokenizer.json", POINTER), "is a pointer of Git LFS"),
    (_cut, "is cut off"),
    (_written("model.safetensors", ""), "is cut off"),
    (
        lambda place: _shards(place, 1),
        "lacks 1 of the 2 files that model.safetensors.index.json names, first model-00002",
    ),
    (_pickled, "holds pickled weights (pytorch_model.bin) and no model.safetensors"),
    (lambda place: (place / "model.safetensors").unlink(), "holds no model.safetensors"),
    (_settings("model.safetensors.index.json", weight_map={}), "names no files"),
    (_written("config.json", POINTER), "config.json is a pointer of Git LFS"),
    (_written("config.json", ""), "config.json is no JSON"),
    (_written("generation_config.json", "{"), "generation_config.json is no JSON"),
    (_written("processor_config.json", "[]"), "processor_config.json holds no settings by name"),
    (_settings("config.json", model_type="future"), "is of no model that transformers knows"),
    (_settings("config.json", model_type="bert"), "is a bert model, which answers no questions"),
    (_settings("config.json", dtype="float99"), "is of no model that transformers knows"),
    (_settings("config.json", quantization_config={"quant_method": "awq", "bits": 4}), "no model can be made of"),
    (lambda place: (place / "config.json").unlink(), "holds no config.json"),
    (lambda place: (place / "tokenizer.json").unlink(), "tokenizer of"),
    (_written("tokenizer.json", ""), "has no processor"),
    (lambda place: (place / "processor_config.json").unlink(), "has no processor"),
    (lambda place: (place / "chat_template.jinja").unlink(), "has no chat template"),
]


@pytest.mark.parametrize(("spoil", "words"), FILES)
def test_files_that_are_not_whole_are_told_by_the_check(
    base: Path, tiny_data: DataRef, spoil: Callable[[Path], Any], words: str
) -> None:
    spoil(base)
    assert words in refusal(base, tiny_data)


def test_an_adapter_alone_is_told_to_be_merged(tiny_data: DataRef, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "merge it first" in refusal(tmp_path, tiny_data)


def test_a_checkpoint_in_several_files_is_whole(base: Path, tiny_data: DataRef) -> None:
    _shards(base, 2)
    checked(base, tiny_data)


def test_a_chat_template_in_the_tokenizers_settings_is_enough(base: Path, tiny_data: DataRef) -> None:
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    checked(base, tiny_data)
    assert load_processor(ref(base)).chat_template == template


def test_the_default_one_of_several_chat_templates_is_taken(base: Path, tiny_data: DataRef) -> None:
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "{{ tools }}"}, {"name": "default", "template": template}]
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": named}))
    checked(base, tiny_data)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "its chat template takes text alone"),
        ("{% for m in messages %}{{ 'Q: ' + m.content }}{% endfor %}", "its chat template fails on question"),
        (
            "{% for m in messages %}{{ m.content[-1].text }}{% endfor %}",
            "holds 0 places for images (`<|image_pad|>`) and 1",
        ),
    ],
)
def test_a_chat_template_that_shows_no_images_is_told(
    base: Path, tiny_data: DataRef, template: str, words: str
) -> None:
    (base / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError) as refused:
        checked(base, tiny_data)
    assert words in str(refused.value)


def test_a_configuration_of_no_model_is_told(base: Path, tiny_data: DataRef) -> None:
    content = json.loads((base / "config.json").read_text())
    content["text_config"]["vocab_size"] = 100
    (base / "config.json").write_text(json.dumps(content))
    assert "no model can be made of" in refusal(base, tiny_data)


def test_a_tokenizer_of_another_model_is_told(base: Path, tiny_data: DataRef) -> None:
    content = json.loads((base / "config.json").read_text())
    content["text_config"]["vocab_size"] = 622
    (base / "config.json").write_text(json.dumps(content))
    file = base / "model.safetensors"
    save_file(changed("embed_tokens", lambda w: w[:622].clone())(load_file(file)), file, {"format": "pt"})
    with pytest.raises(UserError, match="and the model knows 622; save the tokenizer that belongs to it"):
        checked(base, tiny_data)


@pytest.mark.parametrize("spoil", [without("k_proj"), changed("lora_B", lambda w: w + torch.inf)])
def test_an_adapter_is_held_to_the_same(
    train_job: Callable, run_stage: Callable, tmp_path: Path, spoil: Callable[[Weights], Weights]
) -> None:
    lora = {"r": 4, "target_modules": "all-linear"}
    job = train_job({"method": "sft", "source": "answers", "lora": lora, "trainer": {"max_steps": 1}})
    place = run_stage(job, tmp_path) / "checkpoints" / "step-000001"
    kept = ModelRef(path=str(place), digest="", step=1, adapter_of=job.start)
    load_model(kept)
    save_file(spoil(load_file(place / "adapter_model.safetensors")), place / "adapter_model.safetensors")
    for load in (lambda: load_model(kept), lambda: learning(load_model(job.start), job.stage, 0, kept)):
        with pytest.raises(UserError, match=r"missing|not finite"):
            load()


CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
"""


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "unheard_of"])
def test_code_beside_a_checkpoint_never_runs(
    base: Path, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (base / "modeling_own.py").write_text(CODE)
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        file = base / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        own = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
        content["auto_map"] = dict.fromkeys(own, "modeling_own.Own")
        if name == "config.json":
            content["model_type"] = kind
        file.write_text(json.dumps(content))
    with suppress(UserError):
        load_processor(ref(base))
        load_model(ref(base))
    assert not list(tmp_path.rglob("ran"))
    if kind == "unheard_of":
        with pytest.raises(UserError, match="of no model that transformers knows"):
            load_model(ref(base))


def test_a_pickle_beside_the_weights_is_not_opened(base: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt"):
        (base / name).write_bytes(pickle.dumps(Bomb()))
    load_model(ref(base))
    assert not (tmp_path / "ran").exists()
