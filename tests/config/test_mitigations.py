"""A mitigation that a stage cannot have is refused in one sentence."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.commands.experiment import load_study
from holdfast.config.study import Study
from holdfast.errors import UserError

LORA = {"lora": {"r": 4, "target_modules": "all-linear"}}
SFT = {"method": "sft", "source": "answers"}
GRPO = {"method": "grpo"}
DISTILL = {"method": "distill", "teacher": "demonstration"}
PRIOR = [{"benchmark": "color", "train": 8}]
REFUSED: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "replay without prior questions": (SFT | {"replay": {}}, ["color"], "arms.a.0.replay: no prior benchmark has"),
    "kl without prior questions": (SFT | {"kl": {"weight": 1, "prompts": "prior"}}, ["color"], "arms.a.0.kl: no prior"),
    "ewc of nothing": (SFT | {"ewc": {"weight": 1}}, ["color"], "set `train: 500`"),
    "targets that were not learned": (SFT | {"replay": {"of": ["targets"]}}, PRIOR, "learns no target before"),
    "ewc under an adapter": (SFT | LORA | {"ewc": {"weight": 1}}, PRIOR, "ewc: is about the weights"),
    "l2 under an adapter": (SFT | LORA | {"l2": 1}, PRIOR, "remove it, or remove lora"),
    "modules under an adapter": (SFT | LORA | {"learn": ["attention"]}, PRIOR, "name modules in lora.target_modules"),
    "own answers of grpo": (GRPO | {"replay": {"answers": "own"}}, PRIOR, "replay.answers: grpo learns from its own"),
    "kl beside beta": (GRPO | {"kl": {"weight": 1}, "trainer": {"beta": 1}}, PRIOR, "which trainer.beta sets too"),
    "a forward kl of rollouts": (GRPO | {"kl": {"weight": 1}}, PRIOR, "say `direction: reverse`"),
    "tokens of grpo": (GRPO | {"talr": {}}, PRIOR, "arms.a.0.talr: unknown field"),
    "own answers of a distillation": (DISTILL | {"replay": {"answers": "own"}}, PRIOR, "distill learns from its own"),
    "kl beside a teacher": (DISTILL | {"kl": {"weight": 1}}, PRIOR, "say `prompts: prior`"),
    "rewards of a distillation": (DISTILL | {"rewards": {"score": 1}}, PRIOR, "arms.a.0.rewards: unknown field"),
    "the base that it is": (DISTILL | {"teacher": "base"}, PRIOR, "arms.a.0.teacher: the arm starts from the base"),
    "a teacher that is not there": (DISTILL | {"teacher": {"kind": "arm", "arm": "b"}}, PRIOR, "it needs the arm 'b'"),
    "orthogonal without an adapter": (SFT | {"orthogonal": {}}, PRIOR, "orthogonal: is about adapters"),
    "orthogonal to nothing": (SFT | LORA | {"orthogonal": {}}, PRIOR, "arms.a.0.orthogonal: the stage before it"),
    "orthogonal from elsewhere": (
        SFT | {"lora": {"r": 4, "init_lora_weights": "pissa"}, "orthogonal": {}},
        PRIOR,
        "begins with B = 0",
    ),
    "a share of all": (SFT | {"replay": {"share": 1}}, PRIOR, "arms.a.0.replay.share"),
}


@pytest.mark.parametrize(("stage", "prior", "said"), REFUSED.values(), ids=REFUSED)
def test_it_names_the_field_and_the_remedy(stage: dict, prior: list, said: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "prior": prior, "arms": {"a": [stage]}}))
    with pytest.raises(UserError) as told:
        load_study(file)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_penalty_that_needs_the_whole_model_is_refused_in_parts(tmp_path: Path) -> None:
    content = {"name": "s", "arms": {"a": [SFT | {"l2": 1.0}]}, "compute": {"gpus": 2, "strategy": "fsdp2"}}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"arms\.a\.0\.l2: needs the whole model"):
        load_study(file)


def test_a_distillation_is_refused_where_influence_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "arms": {"a": [DISTILL]}, "influence": {}}))
    with pytest.raises(UserError, match=r"arms\.a\.0: influence has no rule for distill; remove influence"):
        load_study(file)


RETAINED = GRPO | {"rewards": {"score": 1, "near": {"kind": "retention"}}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"influence": {}}, r"arms\.a\.0\.rewards\.near: influence grades rollouts without the model"),
        ({"compute": {"gpus": 2, "strategy": "fsdp2"}}, r"arms\.a\.0\.rewards\.near: needs the whole model"),
    ],
)
def test_retention_is_refused_where_the_model_as_it_was_is_not_there(given: dict, said: str, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"name": "s", "arms": {"a": [RETAINED]}}))
    assert load_study(file).arms["a"][0].rewards["near"].weight == 0.5
    file.write_text(yaml.safe_dump({"name": "s", "arms": {"a": [RETAINED]}} | given))
    with pytest.raises(UserError, match=said):
        load_study(file)


@pytest.mark.parametrize(
    ("stage", "compute", "said"),
    [
        (SFT | {"talr": {}}, {}, r"arms\.a\.0\.talr: no rule of a ledger covers it; leave it out, or the ledger of a"),
        (SFT | {"lora": {"r": 4, "lora_dropout": 0.1}}, {}, r"arms\.a\.0\.lora\.lora_dropout: no rule"),
        (SFT, {"gpus": 2, "strategy": "fsdp2"}, "compute.strategy: fsdp2: no rule"),
    ],
)
def test_what_no_ledger_can_account_for_is_refused_before_it_trains(
    stage: dict, compute: dict, said: str, tmp_path: Path
) -> None:
    content = {"name": "s", "arms": {"a": [stage]}, "compute": compute}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(content))
    assert load_study(file).influence is None
    file.write_text(yaml.safe_dump(content | {"influence": {"ledger": {}}}))
    with pytest.raises(UserError, match=said):
        load_study(file)


@pytest.mark.parametrize(
    ("penalty", "beyond"),
    [({"direction": "reverse"}, []), ({"prompts": "prior"}, ["kl"])],
)
def test_a_ledger_has_an_account_of_trls_own_kl_alone(penalty: dict, beyond: list[str]) -> None:
    """`kl` on the target prompts of grpo is what `trainer.beta` is."""
    arm = GRPO | {"kl": {"weight": 0.1} | penalty}
    given = {"name": "s", "arms": {"a": [arm]}, "prior": PRIOR}
    assert Study.model_validate(given).arms["a"][0].unaccounted == beyond
    with pytest.raises(ValueError, match=r"arms\.a\.0\.kl: no rule") if beyond else nullcontext():
        Study.model_validate(given | {"influence": {"ledger": {}}})


def test_predictors_are_refused_where_the_base_has_no_room_beside_a_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    content = {"name": "s", "arms": {"a": [SFT]}, "predictors": {}, "evaluation": {"drift": "sampled"}}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"predictors: they read the base .* leave one of them out"):
        load_study(file)
