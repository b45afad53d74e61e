from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrcl_set import mrcl, written

from flows.commands.experiment import load_experiment, load_study
from flows.graph import arm_order
from holdfast.config.images import Folder
from holdfast.config.methods import GRPO, SFT, Rollouts
from holdfast.errors import UserError

EXPERIMENTS = sorted(Path("experiments").rglob("*.yaml"))
BUNDLED = Path("experiments/bundled.yaml")


def refusal(*overrides: str, file: Path = BUNDLED) -> str:
    with pytest.raises(UserError) as error:
        load_study(file, overrides)
    return str(error.value)


def test_there_are_experiments():
    assert {path.name for path in EXPERIMENTS} >= {"bundled.yaml", "smoke.yaml", "photos.yaml"}


@pytest.mark.parametrize("file", EXPERIMENTS, ids=str)
def test_every_experiment_is_valid(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = file.absolute()
    written(mrcl(tmp_path / "mrcl"))
    monkeypatch.chdir(tmp_path)
    assert load_experiment(file).name == file.stem


def test_the_smoke_study_has_the_arms_of_the_default_study():
    # And one that chooses its samples.
    arms = {*load_study(BUNDLED).arms, "aligned"}
    assert load_study(Path("experiments/smoke.yaml")).arms.keys() == arms


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", "0.0001", "+1e-4"])
def test_a_number_in_trainer_arguments_is_a_number_however_it_is_written(tmp_path: Path, text: str):
    file = tmp_path / "x.yaml"
    file.write_text(f"name: x\narms: {{a: [{{method: sft, source: answers, trainer: {{learning_rate: {text}}}}}]}}\n")
    assert load_study(file).arms["a"][0].trainer == {"learning_rate": 1e-4}


@given(st.integers(0, 10**6), st.floats(1e-12, 1e12))
def test_any_number_given_by_set_arrives(steps: int, rate: float):
    overrides = [f"arms.self.0.trainer.max_steps={steps}", f"arms.self.0.trainer.learning_rate={rate}"]
    trainer = load_study(BUNDLED, overrides).arms["self"][0].trainer
    assert (trainer["max_steps"], trainer["learning_rate"]) == (steps, rate)


@pytest.mark.parametrize("text", ["2026-02-30", "2026-02-03", "on", "no", "1_2", "2026_02_03"])
def test_what_is_no_number_in_decimal_is_text(text: str):
    assert load_study(BUNDLED, [f"name={text}"]).name == text


@pytest.mark.parametrize(
    ("override", "value"),
    [("seed=1_000", 1000), ("seed=+5", 5), ("target.thinking=no", False), ("target.thinking=True", True)],
)
def test_numbers_and_switches_are_what_people_mean(override: str, value: object):
    study = load_study(BUNDLED, [override])
    assert (study.seed if "seed" in override else study.target.thinking) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("010", "010 is no decimal number, as its first 0 can mean octal; write 10, or text in quotes"),
        ("08", "write 8"),
        ("0x1F", "0x1F is no decimal number"),
        ("12:30", "seed: Input should be a valid integer"),
        (".nan", "no finite number"),
        ("1e999", "no finite number"),
        ("!!int x", "'x' is no int"),
        ("!!timestamp 2026-02-30", "'2026-02-30' is no timestamp"),
        ("9" * 5000, "not readable as YAML"),
        ("[" * 3000, "nested too deeply"),
    ],
)
def test_a_number_in_another_notation_is_refused_in_a_sentence(tmp_path: Path, text: str, told: str):
    (tmp_path / "x.yaml").write_text(f"name: x\narms: {{a: [{{method: sft, source: answers}}]}}\nseed: {text}\n")
    for message in (refusal(f"seed={text}"), refusal(file=tmp_path / "x.yaml")):
        assert told in message
        assert len(message) < 300


def test_a_number_where_text_is_needed_is_told_to_be_quoted():
    assert "name: is text, which YAML reads as 1.1; put it in quotes" in refusal("name=1.10")


def test_a_tilde_is_the_home_directory_in_every_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    images, hub = "images={source: folder, path: ~/a}", "images={source: hub, name: ~/a}"
    assert load_study(BUNDLED, [images]).images.path == Path("/home/someone/a")
    assert load_study(BUNDLED, [hub]).images.name == "/home/someone/a"
    study = load_study(BUNDLED, ["prior=[{name: own, path: ~/a.jsonl}]", "model.path=~/a"])
    assert (study.prior[0].path, study.model.path) == (Path("/home/someone/a.jsonl"), "/home/someone/a")
    assert "target.path: /home/someone/a.jsonl is no" in refusal("target={benchmark: banner, path: ~/a.jsonl}")
    public = load_study(BUNDLED, ["target={benchmark: counting, public: {name: ~/a, columns: {caption: c}}}"]).target
    assert public.public.name == "/home/someone/a"
    assert "there is no home directory ~nobody-here" in refusal("model.path=~nobody-here/a")


def test_names_that_are_no_utf_8_are_refused_in_a_sentence():
    assert "no UTF-8" in refusal(file=Path("caf\udce9.yaml"))
    assert "not readable as YAML" in refusal("images.path=caf\udce9")


def test_set_changes_one_arm_where_the_file_shares_its_mapping():
    study = load_study(BUNDLED, ["arms.self.0.trainer.max_steps=7"])
    assert study.arms["self"][0].trainer["max_steps"] == 7
    assert study.arms["teacher"][0].trainer["max_steps"] != 7


def test_set_reaches_what_the_file_leaves_to_defaults():
    study = load_study(BUNDLED, ["target.grid=[3,3]", "images={source: folder, path: somewhere}"])
    assert study.target.grid == (3, 3)
    assert study.images == Folder(source="folder", path=Path("somewhere"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("target.gird=[3,3]", "bundled.yaml: target.gird: unknown field (did you mean 'grid'?)"),
        ("arms.rft.0.trianer.x=1", "arms.rft.0.trianer: unknown field (did you mean 'trainer'?)"),
        ("evaluation.pause=1", "evaluation.pause: unknown field (known here: keep, keep_dtype, "),
        ("prior=[colour]", "prior.0: unknown benchmark 'colour' (did you mean 'color'?)"),
        ("arms.self.0.source=selfie", "arms.self.0.source: unknown kind 'selfie' (did you mean 'self'?)"),
        (
            "arms.self.0.source={kind: self, temprature: 1}",
            "arms.self.0.source.temprature: unknown field (did",
        ),
        ("images={size: 64}", "images: say which kind it is with `source: …`"),
        ("target.grid=[1,1]", "grid: a puzzle needs at least two pieces"),
        ("target.grid=[60,60]", "60"),
        ("model.dtype=fp8", "model.dtype: Input should be 'float32', 'bfloat16', 'float16' or 'auto', not 'fp8'"),
        ("compute.threads=0", "compute.threads: Input should be greater than 0, not 0"),
        ("arms.rollouts.0.source.arm=rtf", "arms.rollouts: it needs the arm 'rtf', which is none of rft, self,"),
        ("arms.rollouts.0.source.arm=rollouts", "rollouts ← rollouts need each other"),
        ("arms.idle=[]", "arms.idle: "),
        ("arms.rft.3.x=1", "--set arms.rft.3.x=1: '3' is no place in a list of 1"),
        ("arms.self.0.source.temperature=2", "the file has 'self' where 'temperature' should be found"),
        ("target", "write FIELD=VALUE"),
        ("name={", "is not readable as YAML"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(override: str, told: str):
    assert told in refusal(override)


def test_a_missing_file_is_refused_with_those_that_are_there():
    assert "experiments/bundled.yaml" in refusal(file=Path("experiments/bundeld.yaml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "line 1"),
        ("just words", "an experiment is a mapping"),
        ("arms:\n  a: []\n  a: []\n", "the key 'a' stands twice"),
        ("name: x\n", "arms: this field is required"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(tmp_path: Path, text: str, told: str):
    (tmp_path / "broken.yaml").write_text(text)
    message = refusal(file=tmp_path / "broken.yaml")
    assert "broken.yaml" in message
    assert told in message


def test_reinforcement_comes_first_and_what_it_is_sampled_for_last():
    study = load_study(BUNDLED)
    rollouts = SFT(method="sft", source=Rollouts(arm="late"))
    study = study.model_copy(
        update={"arms": {"a": study.arms["self"], "b": (rollouts,), "late": (GRPO(method="grpo"),)}}
    )
    assert arm_order(study) == ["late", "a", "b"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["target.gird=[3,3]"], "target.gird: unknown field (did you mean 'grid'?)"),
        (["target.benchmark=clases"], "target: unknown benchmark 'clases' (did you mean 'classes'?)"),
        (["target.benchmark=classes", "target.diffculty=1"], "unknown field (did you mean 'difficulty'?)"),
        (["target.benchmark=classes", "target.difficulty=2"], "target.difficulty: "),
        (["target.benchmark=spatial", "target.public.revison=x"], "target.public.name: this field is required"),
        (["target.benchmark=spatial", "target.public=owner/data"], "target.public: the columns of owner/data"),
        (["target.benchmark=banner", "target.path=nowhere.jsonl"], "target.path: nowhere.jsonl is not there"),
        (["target.benchmark=classes", "images={source: world, size: 96}"], "images: classes has images of its own"),
    ],
)
def test_what_is_wrong_with_a_target_is_told_by_field(overrides: list[str], words: str):
    assert words in refusal(*overrides)


@pytest.mark.parametrize("benchmark", ["classes", "spatial", "banner", "detection", "counting"])
def test_any_study_can_be_given_another_target(benchmark: str):
    target = load_study(BUNDLED, [f"target.benchmark={benchmark}", "target.train=400"]).target
    assert (target.benchmark, target.train) == (benchmark, 400)


BOMB = "name: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "it has more than 50,000 values"),
        ("name: &n [*n]\n", "an alias stands inside what it names"),
        ("name: &n {a: {b: *n}}\n", "an alias stands inside what it names"),
        ("name: x\n" + "# " + "x" * 2**18, "it has more than 262,144 characters"),
        ("name: !!python/object/apply:os.system [touch owned]\n", "could not determine a constructor"),
        ("name: !!python/name:os.system\n", "could not determine a constructor"),
        ("[" * 5000, "it is nested too deeply"),
        ("".join(f"k{n}: 1\n" for n in range(20_000)) + "k7: 2\n", "stands twice"),
    ],
)
def test_yaml_that_means_harm_is_refused_at_once(tmp_path: Path, text: str, told: str):
    file = tmp_path / "hostile.yaml"
    file.write_text(text)
    assert told in refusal(file=file)
    assert not Path("owned").exists()


@pytest.mark.parametrize(
    "override",
    [
        "name=../../outside",
        "name=/tmp/outside",
        "sweep=../../outside",
        "arms.../../outside=[{method: sft, source: answers}]",
        "arms={'../outside': [{method: sft, source: answers}]}",
        "prior=[{benchmark: imported, name: ../outside, path: x.jsonl}]",
        "arms.rft.0.rewards={'../outside': {kind: score}}",
        "vary={size: {../outside: {seed: 1}}}",
    ],
)
def test_a_name_that_becomes_a_path_is_a_plain_name(override: str):
    assert "outside" in refusal(override) or "pattern" in refusal(override)


def test_a_secret_in_a_file_or_an_override_is_refused(tmp_path: Path):
    told = refusal("arms.rft.0.trainer.hub_token=hf_planted")
    assert "arms.rft.0.trainer.hub_token: holds a secret" in told
    assert "hf_planted" not in told
