import os
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.flows import load_flow_from_entrypoint
from typer.testing import CliRunner

from flows.commands.main import app
from holdfast.config.study import Study


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output


def test_the_command_line_loads_nothing_heavy():
    heavy = "('prefect', 'mlflow', 'torch', 'pandas')"
    code = f"import flows.commands.main, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("verb", ["study", "data", "serve"])
def test_a_missing_experiment_ends_with_code_2_and_one_line(repository: Path, verb: str):
    code, output = invoke(verb, "experiments/nothing.yaml")
    assert code == 2
    assert output == "holdfast: experiments/nothing.yaml: no such file.\n"


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_of_several_ranks_is_refused_before_anything(
    repository: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (repository / "x.yaml").write_text("name: x\narms: {a: [{method: sft, source: answers}]}\n")
    monkeypatch.setenv(name, "2")
    code, output = invoke("study", "x.yaml")
    assert code == 2
    assert output.startswith(f"holdfast: {name}=2: holdfast starts the processes of a stage itself")
    assert "set compute.gpus" in output
    assert output.count("\n") == 1
    assert [path.name for path in repository.iterdir()] == ["x.yaml"]
    monkeypatch.setenv(name, "1")
    assert invoke("study", "nothing.yaml") == (2, "holdfast: nothing.yaml: no such file.\n")


def test_serving_without_a_server_says_how_to_get_one(repository: Path):
    (repository / "x.yaml").write_text("name: x\narms: {a: [{method: sft, source: answers}]}\n")
    code, output = invoke("serve", "x.yaml")
    assert code == 2
    assert "make ui" in output


def test_reports_and_runs_that_are_not_there_are_refused(repository: Path):
    for arguments, told in (
        (("report", "nothing"), "no study or sweep of this name has a report"),
        (("show", "abcdef"), "0 runs"),
    ):
        code, output = invoke(*arguments)
        assert code == 2
        assert told in output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("export", "unknown", "a.tar"), "no study or sweep of this name has a report"),
        (("export", "unknown", "a.zip"), "let it end with .tar, .tar.gz"),
        (("import", "a.tar"), "is not there; name a file that `holdfast export` wrote"),
        (("import", "pyproject.toml"), "is no name of an archive"),
        (("gc", "--clone", "nowhere"), "is no clone with a .dvc directory"),
    ],
)
def test_studies_and_archives_that_are_not_there_are_refused(
    repository: Path, arguments: tuple[str, ...], sentence: str
):
    code, output = invoke(*arguments)
    assert code == 2
    assert sentence in " ".join(output.split())
    assert not list(repository.glob("*.tar*"))


def test_the_doctor_names_the_remedy_for_a_directory_without_dvc(repository: Path):
    code, output = invoke("doctor")
    assert code == 1
    assert "run `dvc init`" in output
    for subject in ("python", "packages", "disk", "memory", "gpu", "mlflow", "prefect", "data"):
        assert subject in output


def test_the_doctor_names_a_server_that_does_not_answer(repository: Path, monkeypatch: pytest.MonkeyPatch):
    code = "from flows.commands.doctor import prefect; print(prefect())"
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "problem" in result.stdout
    assert "no Prefect server answers there" in result.stdout


def test_the_flow_loads_by_its_module_entrypoint():
    assert load_flow_from_entrypoint("flows.study.study").name == "study"


def test_the_flow_has_evaluated_annotations_as_a_prefect_runner_needs():
    from flows.study import study

    assert study.fn.__annotations__["config"] is Study
