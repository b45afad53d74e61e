import sys
from pathlib import Path

import pytest

from flows.jobs import check_job
from holdfast.config.images import Folder
from holdfast.config.jobs import BuildBase, Check, MakeData, Sample, Trace, Train
from holdfast.config.measurement import Evaluation, Influence, Vllm
from holdfast.config.methods import GRPO, SFT, Answers, Rollouts, Selection
from holdfast.config.model import Model, Recipe
from holdfast.config.prior import Imported
from holdfast.config.refs import DataRef, FileRef, ModelRef
from holdfast.config.study import Compute, Study
from holdfast.config.targets import Jigsaw
from tasks import stage_cache
from tasks.stage_cache import key_content, stage_key


def train(**changes) -> Train:
    fields = {
        "stage": SFT(method="sft", source=Answers(), trainer={"max_steps": 6}),
        "start": ModelRef(path="/here/model", digest="m"),
        "base": ModelRef(path="/here/model", digest="m"),
        "data": DataRef(path=Path("/here/data"), digest="d"),
        "questions": FileRef(path=Path("/here/data/target-train.parquet"), digest="q"),
        "limit": 96,
    }
    return Train(**(fields | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"start": ModelRef(path="/there/model", digest="m")},
        {"data": DataRef(path=Path("/there"), digest="d")},
        {"questions": FileRef(path=Path("/there.parquet"), digest="q")},
        {"data": DataRef(path=Path("/here/data"), digest="with another prior benchmark")},
        {"evaluation": Evaluation(batch_size=7, validation=3, pass_at=(4,))},
        {"threads": 2},
        {"gpus": 8, "strategy": "fsdp2"},
        {"device": "cpu"},
    ],
)
def test_a_key_ignores_places_parallelism_and_what_is_only_asked(change):
    assert stage_key(train(**change)) == stage_key(train())


@pytest.mark.parametrize(
    "change",
    [
        {"start": ModelRef(path="/here/model", digest="other")},
        {"start": ModelRef(path="/here/model", digest="m", revision="v2")},
        {"base": ModelRef(path="/here/model", digest="other")},
        {"questions": FileRef(path=Path("/here/data/target-train.parquet"), digest="other")},
        {"samples": FileRef(path=Path("/here/samples.parquet"), digest="s")},
        {"seed": 1},
        {"stage": SFT(method="sft", source=Answers(), trainer={"max_steps": 7})},
        {"keep": 0.5},
        {"limit": 97},
    ],
)
def test_a_key_sees_what_decides_the_result(change):
    assert stage_key(train(**change)) != stage_key(train())


def test_fields_that_came_later_leave_keys_as_they_were_until_they_are_set():
    """The content that a key was made of before them."""
    content = key_content(train())
    assert "keep_dtype" not in content
    assert set(content["start"]) == {"digest", "step", "revision", "adapter_of"}
    study = Study(name="s", arms={"a": (SFT(method="sft", source=Answers()),)}, influence=Influence())
    checked = key_content(Check(study=study, data=train().data))["study"]
    assert set(checked["model"]) == {"path", "revision", "dtype", "seed", "recipe"}
    assert set(checked["influence"]) == {"samples", "every", "questions", "batch_size", "probes"}
    chosen = SFT(method="sft", source=Answers(), select=Selection(by="random", keep=0.5))
    assert set(key_content(chosen)["select"]) == {"by", "keep"}
    assert not {"keep_dtype", "vllm"} & checked["evaluation"].keys()
    assert not {"vllm", "replayed"} & key_content(sample()).keys()
    assert "predictors" not in checked
    assert stage_key(train(keep_dtype="bfloat16")) != stage_key(train())
    bounded = ModelRef(path="/here/model", digest="m", max_pixels=1000)
    assert stage_key(train(start=bounded)) != stage_key(train())


def sample(**changes) -> Sample:
    told = train()
    fields = {"source": Rollouts(arm="a"), "model": told.start, "base": told.base, "data": told.data}
    return Sample(**fields, questions=told.questions, limit=told.limit, **changes)


def test_where_a_server_rolls_out_is_no_part_of_a_key_and_whether_one_does_is():
    def key(**trainer) -> str:
        return stage_key(train(stage=GRPO(method="grpo", trainer={"use_vllm": True, **trainer})))

    served = key(vllm_mode="server", vllm_server_port=8000)
    assert served == key(vllm_mode="server", vllm_server_base_url="http://10.0.0.2:9000", vllm_server_timeout=10)
    assert served != key(vllm_mode="colocate")


def test_answers_by_vllm_are_other_stages_whatever_its_share_of_the_card():
    by_vllm = stage_key(sample(vllm=Vllm()))
    assert by_vllm != stage_key(sample())
    assert by_vllm == stage_key(sample(vllm=Vllm(gpu_memory_utilization=0.2)))
    assert by_vllm != stage_key(sample(vllm=Vllm(arguments={"quantization": "fp8"})))
    assert stage_key(train(evaluation=Evaluation(vllm=Vllm()))) == stage_key(train(evaluation=Evaluation()))


@pytest.mark.parametrize("name", ["device", "threads", "compute", "path", "digest"])
def test_a_key_sees_whatever_a_user_has_named(name):
    def rewarded(weight: float) -> str:
        rewards = {"score": 1.0, "digest": {"kind": "format"}, name: {"kind": "accuracy", "weight": weight}}
        return stage_key(train(stage=GRPO(method="grpo", rewards=rewards)))

    def argued(field: str, value: int) -> str:
        return stage_key(train(stage=SFT(method="sft", source=Answers(), **{field: {name: value, "digest": 1}})))

    assert rewarded(0.1) != rewarded(0.2)
    assert argued("trainer", 1) != argued("trainer", 2) or name == "digest"
    assert argued("lora", 1) != argued("lora", 2) or name == "digest"


def test_a_key_of_what_follows_a_training_ignores_where_that_training_ran():
    def traced(**changes) -> str:
        return stage_key(Trace(train=train(**changes), data=train().data, kept=(), influence=Influence()))

    assert traced() == traced(threads=2, device="cpu")
    assert traced() != traced(seed=1)


def test_a_key_of_a_check_sees_a_reward_function_that_changed_or_went(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    terms = {"mine": {"function": "rewards_that_come_and_go:f"}}
    study = Study(name="s", arms={"a": (GRPO(method="grpo", rewards=terms),)})
    data = DataRef(path=tmp_path, digest="d")
    keys = [stage_key(check_job(study, data))]
    assert stage_key(check_job(study, data, settled=True)) == keys[0] != stage_key(check_job(study))
    for text in ("f = 1", "f = 2"):
        (tmp_path / "rewards_that_come_and_go.py").write_text(text)
        keys.append(stage_key(check_job(study, data)))
    assert len(set(keys)) == 3
    (tmp_path / "rewards_that_come_and_go.py").unlink()
    assert stage_key(check_job(study, data)) == keys[0]


def test_a_key_of_data_sees_the_files_and_not_where_they_are():
    def made(path: str, inputs: str) -> str:
        prior = (Imported(name="mine", path=Path(path)),)
        return stage_key(
            MakeData(images=Folder(source="folder", path=path), target=Jigsaw(), prior=prior, inputs=inputs)
        )

    assert made("/here", "one") == made("/there", "one")
    assert made("/here", "one") != made("/here", "two")


def test_a_key_of_a_check_sees_which_model_is_checked():
    def checked(model: str, threads: int = 1) -> str:
        arms = {"answers": (SFT(method="sft", source=Answers()),)}
        study = Study(name="s", arms=arms, model=Model(path=model), compute=Compute(threads=threads))
        return stage_key(Check(study=study, data=DataRef(path=Path("/here"), digest="d")))

    assert checked("bundled") != checked("Qwen/Qwen2.5-VL-3B-Instruct")
    assert checked("bundled") == checked("bundled", threads=2)


def test_a_key_sees_the_kind_of_job():
    assert stage_key(train()) != stage_key(BuildBase(recipe=Recipe()))


def test_a_key_sees_a_changed_line_of_code(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "module.py").write_text("one = 1\n")
    before = stage_cache.code_digest(tmp_path)
    (tmp_path / "deep" / "module.py").write_text("one = 2\n")
    stage_cache.code_digest.cache_clear()
    after = stage_cache.code_digest(tmp_path)
    assert before != after

    unchanged = stage_key(train())
    monkeypatch.setattr(stage_cache, "source_digest", lambda verb: after)
    assert stage_key(train()) != unchanged


def test_a_key_sees_the_lock_file(tmp_path):
    lock = tmp_path / "requirements.lock"
    assert stage_cache.lock_digest(lock) == ""
    stage_cache.lock_digest.cache_clear()
    lock.write_text("torch==2\n")
    assert stage_cache.lock_digest(lock)
