"""What a preflight says, of numbers by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from repositories import holdfast, new_repository

import flows.study
from flows.commands.preflight import lines
from flows.hours import Times, paces, study_times
from flows.jobs import check_job
from flows.preflight import Preflight
from flows.study import prepared
from holdfast.config.refs import DataRef, ModelRef
from holdfast.config.study import Study
from tasks.stage import Context
from tasks.tracking import Store

MEMORY = dict.fromkeys(("weights", "gradients", "optimizer", "copies", "reference", "activations", "head"), 0)
NEED = {
    "shape": {"parameters": 3_000_000_000, "learning": 30_000_000},
    "memory": MEMORY
    | {"weights": 6_000_000_000, **dict.fromkeys(("generation", "vllm", "measuring"), 0), "total": 8_000_000_000},
    "asking": {"weights": 6e9, "base": 6e9, "vllm": 0, "batch": 5e9, "total": 17e9},
    "disk": {"kept": 200_000_000, "running": 40_000_000_000},
    "influence": {"total": 18e9, "activations": 8e9, "head": 2e9, "host": 6e9},
    "ledger": {"total": 12e9},
    "steps": 100,
    "operations": 2 * 10**12,
}


ARM = {"method": "sft", "source": "answers", "trainer": {"max_steps": 100}}


def study(tokens: bool, stage: dict[str, Any]) -> Study:
    return Study.model_validate({"name": "a", "arms": {"a": [stage]}, "influence": {"ledger": {"tokens": tokens}}})


def said(tokens: bool, tried: dict[str, Any], stage: dict[str, Any] = ARM) -> list[str]:
    checked = {"longest_prompt": 900, "longest_answer": 60, "needs": {"arms.a.0": NEED}, "memory_there": 80_000_000_000}
    return list(lines(study(tokens, stage), Preflight(checked, {"arms.a.0": tried}), Path()))


def test_a_ledger_has_its_memory_and_time_before_anything_starts() -> None:
    tried = {"seconds_a_step": 6.0, "peak": 7e9}
    assert "  ledger: 12 GB, about 25 min after the training, benchmarks' gradients apart" in said(True, tried)
    assert "  ledger: 12 GB, about 12 min after the training, benchmarks' gradients apart" in said(False, tried)
    grpo = {"method": "grpo"}
    assert "  ledger: 12 GB, about 33 min after the training, benchmarks' gradients apart" in said(True, tried, grpo)
    assert "  ledger: 12 GB, about 19 min after the training, benchmarks' gradients apart" in said(False, tried, grpo)
    assert "  ledger: 12 GB" in said(True, {}), "no step was tried"


def test_influence_that_was_tried_is_told_with_its_time_at_all_checkpoints() -> None:
    """At the beginning and at 4 of 100 steps: 10 s for the samples each, and twice 8 · 4 s for 16 questions."""
    times = {"seconds_samples": 10.0, "seconds_questions": 4.0, "questions": 2}
    fits = {"seconds_a_step": 6.0, "peak": 7e9, "influence": {"samples": 24, "peak": 17e9, **times}}
    told = (
        "  influence tried: at most 17 GB with the 24 longest samples; about 6 min after the training if all were so "
    )
    assert f"{told}long" in said(True, fits)
    assert f"{told}long, sampling apart" in said(True, fits, {"method": "grpo"})
    failed = {"influence": {"failed": "influence: a batch of samples does not fit"}}
    assert "  influence tried: a batch of samples does not fit" in said(True, fits | failed)


def test_influence_is_told_with_its_batch_and_what_lies_on_the_host() -> None:
    assert "  influence: 18 GB, 10 GB of it for a batch, and 6.0 GB of the host's memory" in said(True, {})


ASKED = {
    "questions": 32,
    "seconds_reading": 16.0,
    "seconds_writing": 48.0,
    "prompts": 8,
    "seconds_comparing": 4.0,
    "asked": 1000,
    "validated": 100,
    "peak": 16e9,
}
"""Of 32 questions a question takes 2 s, a completion 1.5 s, and a comparison with the base 0.5 s."""
SAMPLED = {"kind": "rollouts", "arm": "a", "prompts": 50, "per_prompt": 2}


def many(evaluation: dict[str, Any] | None = None, **more: Any) -> Study:
    """Two arms of a hundred steps, kept and evaluated at two of them, and a blend."""
    b = {"method": "sft", "source": SAMPLED, "trainer": {"max_steps": 100}}
    arms = {"a": [ARM], "b": [b], "c": [{"method": "interpolate", "arm": "a"}]}
    about = {"name": "a", "replicates": 1, "arms": arms, "influence": {"samples": 8, "every": 0.5}}
    settings = {"keep": 0.5, "every": 0.5, "drift_prompts": 20, **(evaluation or {})}
    return Study.model_validate({**about, "evaluation": settings, **more})


def tried_out(evaluation: dict[str, Any]) -> Preflight:
    influence = {"samples": 8, "seconds_samples": 10.0, "seconds_questions": 4.0, "questions": 2, "peak": 1e9}
    trials = {f"arms.{arm}.0": {"seconds_a_step": 6.0, "peak": 7e9, "influence": influence} for arm in "ab"}
    needs = {where: NEED | {"ledger": None} for where in trials}
    checked = {"longest_prompt": 900, "longest_answer": 60, "needs": needs, "memory_there": 80_000_000_000}
    return Preflight(checked, trials, evaluation)


def test_hours_are_those_of_trainings_sampling_evaluations_and_influence() -> None:
    """A checkpoint: 1,000 · 2 s + 20 · 0.5 s. Each stage: two of them, and twice 100 · 2 s along the way; influence
    at three points 10 s and 2 · 4 · 8 s. The base: once, 20 samples of 1.5 s that are read in 0.5 s, and three times
    1,000 · 2 s."""
    once = 2010.0
    arm = {"training": 600.0, "evaluation": 2 * once + 400.0, "influence": 3 * (10 + 64.0)}
    assert study_times(many(), tried_out(ASKED)) == {
        "base": Times(evaluation=once + 40 + 6000),
        "arms.a.0": Times(**arm),
        "arms.b.0": Times(**arm, sampling=50 * 2 * 1.5),
        "arms.c.0": Times(evaluation=3 * once),
    }


def test_on_several_gpus_questions_are_shared() -> None:
    assert paces(ASKED, 1) == (2.0, 1.5, 0.5)
    assert paces(ASKED, 4) == (0.5, 0.375, 0.125)


REINFORCED = {"method": "grpo", "trainer": {"max_steps": 100}}
"""Influence has it sample 8 completions at each of three points."""


def test_what_one_process_asks_is_not_shared_by_the_others() -> None:
    """On four GPUs: a checkpoint in a quarter of 2,010 s; along the way the first asks 100 questions twice, 2 s each,
    and at each of three points one has 8 samples of 1.5 s, 10 s and 64 s."""
    study = many(compute={"gpus": 4}, arms={"a": [REINFORCED], "b": [ARM]})
    times = study_times(study, tried_out(ASKED))
    assert times is not None
    assert times["base"] == Times(evaluation=(2010 + 40 + 6000) / 4)
    assert times["arms.a.0"] == Times(600.0, 0.0, 2 * 2010 / 4 + 400, 3 * (8 * 1.5 + 10 + 64))


def test_along_the_way_transformers_writes_also_where_evaluations_are_by_vllm() -> None:
    """With vLLM a question takes 2 s, a completion 1.5 s; by transformers 5 s and 4 s. vLLM is asked once."""
    along = {"questions": 8, "seconds_reading": 8.0, "seconds_writing": 32.0}
    study = many({"vllm": {}}, arms={"a": [REINFORCED], "b": [ARM]})
    times = study_times(study, tried_out(ASKED | {"along": along}))
    assert times is not None
    assert times["base"] == Times(evaluation=2010 + 40)
    assert times["arms.a.0"] == Times(600.0, 0.0, 2 * 2010 + 2 * 100 * 5, 3 * (8 * 4 + 10 + 64))


def test_chances_of_k_samples_are_those_of_the_first_of_several_targets() -> None:
    """10 questions of the first, 8 samples each of 1.5 s, for a checkpoint; not 300 of a target that nobody has."""
    targets = {name: {"benchmark": name, "test": test} for name, test in (("classes", 10), ("counting", 500))}
    arms = {arm: [ARM | {"target": "counting"}] for arm in "ab"}
    times = study_times(many({"pass_at": [1, 8]}, targets=targets, arms=arms), tried_out(ASKED))
    assert times is not None
    assert times["arms.a.0"].evaluation == 2 * (2010 + 10 * 8 * 1.5) + 400


def test_a_study_is_told_what_its_evaluations_and_all_of_it_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 s of steps, 150 of samples, 8,050 and 14,870 of evaluations, 444 of influence."""
    monkeypatch.setattr("flows.commands.preflight.stages_at_once", lambda study: 1)
    told = list(lines(many(), tried_out(ASKED), Path()))
    assert "evaluation: 17 GB by arithmetic (a checkpoint 6.0 GB, the base 6.0 GB, a batch 5.0 GB)" in told
    assert (
        "evaluation tried: at most 16 GB with the 32 longest questions; about 33 min for a checkpoint's 1,000 if all "
        "were so long"
    ) in told
    assert told[-1] == (
        "Time: about 6.9 h for all replicates, 1 at a time, if all answers were as long as they may be: training 20 "
        "min, sampling 2 min, evaluation 6.4 h, influence 7 min."
    )
    by_vllm = list(lines(many({"vllm": {}}), tried_out(ASKED), Path()))[-1]
    assert "if all answers were as long as they may be, and vLLM's as the base's to the longest questions: " in by_vllm
    failed = list(lines(many(), tried_out({"failed": "evaluation: a batch of questions does not fit"}), Path()))
    assert "evaluation tried: a batch of questions does not fit" in failed
    assert failed[-1] == "Time: unknown, since not every stage and the evaluation were tried."


ELSEWHERE: dict[str, dict[str, Any]] = {
    "photographs": {"images": {"source": "folder"}},
    "rows of the Hub": {"target": {"benchmark": "detection", "public": {"name": "detection-datasets/coco"}}},
    "rows of one's own": {"target": {"benchmark": "banner", "path": "own.jsonl"}},
    "a public benchmark": {"prior": [{"benchmark": "pope"}]},
    "a benchmark of one's own": {"prior": [{"name": "mine", "path": "own.jsonl"}]},
}


@pytest.mark.parametrize("given", [{}, *ELSEWHERE.values()], ids=["the world", *ELSEWHERE])
def test_what_needs_no_data_is_checked_before_data_is_read_from_elsewhere(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
) -> None:
    whole, ran = Study.model_validate({"name": "a", "arms": {"a": [ARM]}, **given}), []
    ref = DataRef(path=Path("data"), digest="d")

    def prepare(study: Study, root: Path, generate: Any, accept: bool, first: Any) -> DataRef:
        if made:
            first()
            generate(None, root)
        return ref

    monkeypatch.setattr(flows.study, "run_stage", lambda job, context: ran.append(job))
    monkeypatch.setattr(flows.study, "run_data_stage", lambda *_: ran.append("data"))
    monkeypatch.setattr(flows.study.data, "prepare_data", prepare)
    context = Context(root=Path(), study=whole, study_run="")
    made = True
    assert prepared(context).settled == bool(given)
    assert ran == ([check_job(whole)] if given else []) + ["data"]
    made, ran = False, []
    assert not prepared(context).settled, "nothing is checked twice where the data is there"
    assert ran == []


@pytest.mark.slow
def test_a_mistake_in_an_arm_is_told_before_data_that_cannot_be_had(tmp_path: Path) -> None:
    trainer = {"max_steps": 2, "num_generations": 3}
    arms = {"rft": [{"method": "grpo", "trainer": trainer}]}
    public = {"name": "nobody/has-this", "columns": {"question": "question", "answer": "answer", "image": None}}
    new_repository(
        tmp_path,
        {
            "name": "tiny",
            "target": {"benchmark": "arithmetic", "public": public},
            "prior": [{"benchmark": "color", "questions": 4}],
            "arms": arms,
        },
    )
    code, _, stderr = holdfast(tmp_path, str(tmp_path), "preflight", "--no-steps", "tiny.yaml", HF_HUB_OFFLINE="1")
    assert code == 2
    assert "arms.rft.0.trainer:" in stderr
    assert "data: started" not in stderr
    right = "arms.rft.0.trainer.num_generations=8"
    code, _, stderr = holdfast(tmp_path, str(tmp_path), "study", "tiny.yaml", "--set", right, HF_HUB_OFFLINE="1")
    assert code == 2
    assert "target.public: cannot load split" in stderr


@pytest.mark.slow
def test_the_command_tries_every_stage_and_trains_nothing(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = {"max_steps": 50, "per_device_train_batch_size": 4}
    new_repository(
        tmp_path,
        {
            "name": "tiny",
            "model": {"path": tiny_model.path},
            "target": {"train": 8, "validation": 2, "test": 4},
            "prior": [{"benchmark": "color", "questions": 4, "validation": 4}],
            "arms": {
                "rft": [{"method": "grpo", "trainer": {**trainer, "num_generations": 4, "max_completion_length": 16}}],
                "answers": [{"method": "sft", "source": "answers", "trainer": trainer}],
            },
            "evaluation": {"max_new_tokens": 16, "drift_prompts": 2},
            "influence": {"samples": 4, "questions": 2},
        },
    )
    code, stdout, stderr = holdfast(tmp_path, str(tmp_path), "preflight", "tiny.yaml")
    assert code == 0, stderr
    for arm in ("rft", "answers"):
        [block] = re.findall(rf"arms\.{arm}\.0:\n((?:  .*\n)+)", stdout)
        assert re.search(r"  tried: \d+\.\d\d s a step, at most \d+ MB", block), block
        assert re.search(r"  influence tried: at most \d.* with the 4 longest samples; about \d+ s", block), block
    assert re.search(r"\nevaluation tried: at most \d.* with the 14 longest questions; about \d+ s for", stdout), stdout
    assert re.search(r"\nTime: about \d+ .*: training .*, evaluation .*, influence .*\.\n", stdout), stdout
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not Store(tmp_path).search("tags.`holdfast.kind` = 'train'")
    assert not list(tmp_path.rglob("trial-*"))
