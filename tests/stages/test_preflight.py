"""What a study may not ask for is refused before anything runs, with the field and a remedy."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import VISION_LANGUAGE, each, made
from PIL import Image
from pydantic import ValidationError

from holdfast.config.jobs import Check
from holdfast.config.refs import DataRef
from holdfast.config.study import Study
from holdfast.data.shards import png, read_questions, write_questions
from holdfast.errors import UserError
from holdfast.models.encode import encode
from holdfast.models.load import save_checkpoint
from holdfast.stages import preflight
from holdfast.stages.fit import Room
from holdfast.stages.lengths import longest_prompt
from holdfast.stages.preflight import check
from holdfast.training import zero3


def checked(data: DataRef, stage: dict[str, Any] | None = None, **study: Any) -> dict[str, Any]:
    arm = {"method": "sft", "source": "answers", "trainer": {"max_steps": 2}, **(stage or {})}
    if arm["method"] == "grpo":
        del arm["source"]
    return check(Check(study=Study(name="s", arms={"a": [arm]}, **study), data=data))


def test_a_study_that_works_is_let_through(tiny_data: DataRef) -> None:
    assert checked(tiny_data, {"lora": {"r": 4, "target_modules": "all-linear"}})["longest_prompt"] > 40


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"trainer": {"max_step": 1}}, "arms.a.0.trainer.max_step is no argument"),
        ({"trainer": {"max_length": 20}}, "arms.a.0.trainer.max_length: 20 tokens cut off training prompts"),
        ({"freeze": ["tower"]}, "arms.a.0.freeze: no parameter's name contains `tower`"),
        ({"lora": {"r": 4, "target_modules": ["foo"]}}, "arms.a.0.lora"),
        ({"lora": {"rank": 4}}, "arms.a.0.lora"),
        ({"lora": {"r": 4, "target_modules": ["lm_head"]}}, "arms.a.0.lora: TRL cannot train an adapter"),
        (
            {"method": "grpo", "trainer": {"max_completion_length": 5}},
            "arms.a.0.trainer.max_completion_length: 5 tokens cannot hold the right answer",
        ),
    ],
)
def test_an_arm_that_cannot_work_is_refused_by_field(tiny_data: DataRef, stage: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        checked(tiny_data, stage)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        (
            {"method": "sft", "source": "answers", "trainer": {"max_step": 1}},
            "arms.a.0.trainer.max_step is no argument",
        ),
        (
            {"method": "sft", "source": "answers", "lora": {"target_modules": ["foo"]}},
            "arms.a.0.lora.target_modules: no",
        ),
        ({"method": "grpo", "trainer": {"num_generations": 3}}, "arms.a.0.trainer"),
        (
            {"method": "grpo", "rewards": {"f": {"function": "json:nothing"}}},
            "arms.a.0.rewards.f.function: json:nothing",
        ),
    ],
)
def test_what_needs_no_data_is_refused_without_any(arm: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        check(Check(study=Study.model_validate({"name": "s", "arms": {"a": [arm]}})))
    assert words in str(refused.value)


def test_weights_are_not_read_again_where_they_just_were(tiny_data: DataRef, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study.model_validate({"name": "s", "arms": {"a": [{"method": "sft", "source": "answers"}]}})
    read: list[str] = []
    monkeypatch.setattr(preflight, "require_finite", lambda path, weights: read.append(path))
    assert check(Check(study=study)) == {}
    assert check(Check(study=study, data=tiny_data, settled=True)) == check(Check(study=study, data=tiny_data))
    assert len(read) == 2


@pytest.mark.parametrize(
    ("method", "trainer", "words"),
    [
        ("sft", {"optim": "adafactor"}, "of the optimizer Adafactor no rule covers it"),
        (
            "sft",
            {"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"},
            "optimizer SGD no rule covers nesterov",
        ),
        ("sft", {"optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.1}, "weight_decay together with mom"),
        ("sft", {"optim": "galore_adamw"}, "no rule covers trainer.optim"),
        ("sft", {"loss_type": "dft"}, "the loss with trainer.loss_type (dft) is no function"),
        ("sft", {"label_smoothing_factor": 0.1}, "trainer.label_smoothing_factor"),
        ("sft", {"neftune_noise_alpha": 5}, "trainer.neftune_noise_alpha"),
        ("grpo", {"entropy_coef": 0.01}, "trainer.entropy_coef"),
        ("grpo", {"use_adaptive_entropy": True}, "trainer.use_adaptive_entropy"),
        ("sft", {"optim": "sgd", "optim_args": "momentum=0.9"}, ""),
        ("grpo", {"optim": "adamw_torch_fused", "beta": 0.1}, ""),
    ],
)
def test_what_a_ledger_has_no_rule_for_is_refused_before_anything_trains(
    tiny_data: DataRef, method: str, trainer: dict[str, Any], words: str
) -> None:
    stage = {"method": method, "trainer": {"max_steps": 2, **trainer}}
    assert checked(tiny_data, stage)
    if not words:
        assert checked(tiny_data, stage, influence={"ledger": {}})
        return
    with pytest.raises(UserError) as refused:
        checked(tiny_data, stage, influence={"ledger": {}})
    assert str(refused.value).startswith("arms.a.0: influence.ledger: ")
    assert words in str(refused.value)


def test_a_ledger_is_refused_where_activations_are_dropped_or_losses_scaled(
    tiny_data: DataRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_without_weights", with_dropout)
    with pytest.raises(UserError, match=r"arms\.a\.0: influence\.ledger: dropped drops activations at random"):
        checked(tiny_data, influence={"ledger": {}})
    monkeypatch.undo()
    monkeypatch.setattr(preflight, "device", lambda named: torch.device("cuda"))
    monkeypatch.setattr(preflight, "room_there", lambda *_: Room(10**12, 10**12))
    half = {"path": "bundled", "dtype": "float16"}
    assert checked(tiny_data, model=half)
    with pytest.raises(UserError, match=r"arms\.a\.0: influence\.ledger: float16 scales its losses"):
        checked(tiny_data, model=half, influence={"ledger": {}})


def with_dropout(make: Any, argument: Any) -> Any:
    with torch.device("meta"):
        model = make(argument)
    model.dropped = torch.nn.Dropout(0.1)
    return model


def test_an_evaluation_that_may_not_fit_is_told_once_and_one_that_cannot_is_refused(
    tiny_data: DataRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models, and a batch that is larger than they are; with `sampled` one."""
    asking = checked(tiny_data)["needs"]["arms.a.0"]["asking"]
    assert asking["weights"] == asking["base"] > 0
    room = asking["total"] - 1
    monkeypatch.setattr(preflight, "room_there", lambda *_: Room(room, None))
    [told] = [line for line in checked(tiny_data)["told"] if line.startswith("evaluation: a batch of the longest")]
    assert told.endswith("or set evaluation.drift: sampled")
    assert not [line for line in checked(tiny_data, evaluation={"drift": "sampled"})["told"] if "evaluation: " in line]
    monkeypatch.setattr(preflight, "require_memory", lambda *_: [])
    room = asking["weights"] + asking["base"] - 1
    with pytest.raises(UserError, match=r"evaluation: a checkpoint and the base beside it .*drift: sampled"):
        checked(tiny_data)


def test_an_evaluation_limit_that_cannot_hold_an_answer_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match=r"evaluation\.max_new_tokens: 6 tokens cannot hold the right answer"):
        checked(tiny_data, evaluation={"max_new_tokens": 6})


def test_a_limit_that_would_cut_the_teachers_style_off_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match=r"evaluation\.max_new_tokens: 40 .* in the style that arms\.a\.0 teaches"):
        checked(tiny_data, {"source": "teacher"}, evaluation={"max_new_tokens": 40})


def test_a_limit_that_would_cut_a_teachers_file_off_is_refused(tiny_data: DataRef, tmp_path: Path) -> None:
    first, second, *_ = read_questions(tiny_data.path / "target-train.parquet")
    long = second.teacher.replace("</think>", f"{'one two ' * 60} </think>")
    rows = [{"id": first.id, "completion": first.teacher}, {"id": second.id, "completion": long}]
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    taught = {"source": {"kind": "file", "path": str(tmp_path / "own.jsonl")}}
    with pytest.raises(UserError) as refused:
        checked(tiny_data, taught)
    assert str(refused.value).startswith("evaluation.max_new_tokens: 96 tokens cannot hold the right answer to questi")
    assert f"{second.id} of target-train.parquet in the style that arms.a.0 teaches" in str(refused.value)
    told = checked(tiny_data, taught, evaluation={"max_new_tokens": 1000})["told"]
    assert told == [f"{tmp_path / 'own.jsonl'} teaches 2 of the 24 training questions; the others are left out."]


def test_a_prompt_longer_than_the_model_is_refused(tiny_data: DataRef) -> None:
    with pytest.raises(UserError, match="more than the model's 4096; lower"):
        checked(tiny_data, evaluation={"max_new_tokens": 4090})


def test_evaluations_by_vllm_are_refused_where_they_cannot_be(
    tiny_data: DataRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"evaluation\.vllm: works on one GPU, and compute\.gpus is 2"):
        checked(tiny_data, evaluation={"vllm": {}}, compute={"device": "cpu", "gpus": 2})
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"evaluation\.vllm: vLLM is not in this environment; `make vllm`"):
        checked(tiny_data, evaluation={"vllm": {}})
    monkeypatch.setattr("holdfast.models.vllm_engine.find_spec", lambda name: name)
    monkeypatch.setattr("holdfast.models.vllm_engine.version", lambda name: "0.31.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match=r"evaluation\.vllm: this vLLM computes on a GPU and torch sees none"):
        checked(tiny_data, evaluation={"vllm": {}})
    rollouts = {"method": "grpo", "trainer": {"use_vllm": True}}
    with pytest.raises(UserError, match=r"arms\.a\.0\.trainer\.use_vllm: this vLLM computes on a GPU"):
        checked(tiny_data, rollouts)
    with pytest.raises(ValidationError, match="model is set by holdfast; remove it"):
        checked(tiny_data, evaluation={"vllm": {"arguments": {"model": "other"}}})


def test_a_path_that_is_no_checkpoint_is_refused(tiny_data: DataRef, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.path"):
        checked(tiny_data, model={"path": str(tmp_path)})


def test_prompts_are_as_long_as_the_processor_makes_them(tiny_data: DataRef, processor: Any) -> None:
    questions = read_questions(tiny_data.path / "prior-color.parquet")
    lengths = [len(row["input_ids"]) for row in encode(processor, questions)]
    assert longest_prompt(processor, questions).tokens == max(lengths)


def with_question(data: DataRef, place: Path, name: str, **changed: Any) -> DataRef:
    """The data, with the first question of a shard changed."""
    for file in data.path.iterdir():
        first, *others = read_questions(file)
        write_questions(place / file.name, [first._replace(**changed) if file.stem == name else first, *others])
    return DataRef(path=place, digest="changed")


def test_an_image_that_the_processor_refuses_is_named(tiny_data: DataRef, tmp_path: Path) -> None:
    strip = (png(Image.new("RGB", (4, 1000))),)
    with pytest.raises(UserError) as refused:
        checked(with_question(tiny_data, tmp_path, "prior-color", images=strip, id="thin"))
    assert str(refused.value).startswith("prior-color.parquet: question thin cannot be read by the model's processor")
    assert "aspect ratio must be smaller than 200" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_prompt_that_holds_an_images_place_itself_is_named(tiny_data: DataRef, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"target-test.*: the prompt of question odd holds 2 places for images"):
        checked(with_question(tiny_data, tmp_path, "target-test", prompt="<|image_pad|> where?", id="odd"))


def test_questions_of_no_image_and_of_several_are_let_through(tiny_data: DataRef, tmp_path: Path) -> None:
    [first, *_] = read_questions(tiny_data.path / "prior-color.parquet")
    for number, images in enumerate(((), (png(Image.new("RGB", (40, 90))), *first.images))):
        (place := tmp_path / str(number)).mkdir()
        checked(with_question(tiny_data, place, "prior-color", images=images))


@pytest.mark.parametrize("study", [{"influence": {}}, {}])
def test_layers_that_influence_does_not_cover_are_refused_before_anything_trains(
    tiny_data: DataRef, tmp_path: Path, study: dict[str, Any]
) -> None:
    model, processor = made("llava")
    save_checkpoint(model, processor, tmp_path / "base")
    selecting = {} if study else {"select": {"by": "magnitude", "keep": 0.5}}
    with pytest.raises(UserError) as refused:
        checked(tiny_data, {"freeze": [], **selecting}, model={"path": str(tmp_path / "base")}, **study)
    assert "arms.a.0.influence: `model.vision_tower.embeddings.class_embedding` belongs to" in str(refused.value)
    assert "(and 1 more, up to `model.vision_tower.embeddings.position_embedding.weight`)" in str(refused.value)
    assert len(str(refused.value)) < 300
    checked(tiny_data, {"freeze": ["embeddings"], **selecting}, model={"path": str(tmp_path / "base")}, **study)
    checked(tiny_data, {"freeze": []}, model={"path": str(tmp_path / "base")})


@pytest.mark.parametrize("name", each(VISION_LANGUAGE))
def test_a_study_of_any_architecture_is_let_through(tiny_data: DataRef, tmp_path: Path, name: str) -> None:
    model, processor = made(name)
    save_checkpoint(model, processor, tmp_path / "base")
    checked(tiny_data, {"freeze": ["vision", "projector"]}, model={"path": str(tmp_path / "base")}, influence={})


@pytest.mark.parametrize(("share", "said"), [(0.5, r"arms\.a\.0: compute\.strategy: zero3 needs images"), (0, "")])
def test_with_zero3_what_a_stage_replays_is_as_what_it_learns(
    tiny_data: DataRef, tmp_path: Path, share: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero3, "find_spec", lambda name: True)
    shutil.copytree(tiny_data.path, tmp_path, dirs_exist_ok=True)
    [first, *_] = read_questions(tiny_data.path / "prior-color.parquet")
    write_questions(tmp_path / "prior_train-color.parquet", [first._replace(images=())])
    with pytest.raises(UserError, match=said) if said else nullcontext():
        checked(
            DataRef(path=tmp_path, digest="d"),
            {"replay": {"share": share, "of": ["prior"]}},
            prior=[{"benchmark": "color", "questions": 4, "train": 1}],
            compute={"gpus": 2, "strategy": "zero3", "device": "cpu"},
        )


def test_a_teacher_who_says_nothing_is_refused(tiny_data: DataRef, tmp_path: Path) -> None:
    for file in tiny_data.path.iterdir():
        silent = [question._replace(teacher="") for question in read_questions(file)]
        write_questions(tmp_path / file.name, silent)
    with pytest.raises(UserError, match=r"arms\.a\.0\.source: question \S+ has no teacher's reasoning"):
        checked(DataRef(path=tmp_path, digest="x"), {"source": "teacher"})
    checked(DataRef(path=tmp_path, digest="x"), {"source": "answers"})


def saved(place: Path, name: str) -> str:
    model, processor = made(name)
    save_checkpoint(model, processor, place / name)
    return str(place / name)


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("llava", {"max_pixels": 12544}, r"model\.max_pixels: .* in sizes of its own \(CLIPImageProcessor"),
        ("qwen2_5_vl", {"min_pixels": 6272, "max_pixels": 3136}, r"model\.min_pixels: 6272 is more than the most"),
        ("qwen2_5_vl", {"attention": "flash_attention_2"}, r"model\.attention: flash_attention_2 is not to be"),
    ],
)
def test_how_a_base_cannot_be_read_is_refused_in_the_check(
    tiny_data: DataRef, tmp_path: Path, name: str, said: dict[str, Any], words: str
) -> None:
    if "attention" in said and find_spec("flash_attn"):
        pytest.skip("it is to be had here")
    with pytest.raises(UserError, match=words):
        checked(tiny_data, {"freeze": ["vision", "projector"]}, model={"path": saved(tmp_path, name), **said})


@pytest.mark.parametrize("built", [False, True])
def test_prompts_are_as_long_as_the_studys_bounds_of_images_make_them(
    tiny_data: DataRef, tmp_path: Path, built: bool
) -> None:
    base = {"path": "bundled", "seed": 1} if built else {"path": saved(tmp_path, "qwen2_5_vl")}
    lengths = [
        checked(tiny_data, model={**base, **said})["longest_prompt"]
        for said in ({}, {"min_pixels": 280 * 280, "max_pixels": 10**6})
    ]
    assert lengths[1] > lengths[0] + 70
