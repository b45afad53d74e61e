"""Deployments and their schedules, without a server."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.commands.experiment import load_experiment, load_timetable
from flows.commands.serve import read_experiments, watch_name
from flows.deployments import deployments, watch_deployment
from holdfast.errors import UserError
from tasks.tracking import Store

REPOSITORY = Path(__file__).parents[2]
EXPERIMENT = "name: x\narms: {a: [{method: sft, source: answers}]}\n"


def file_with(place: Path, schedule: str, name: str = "x") -> Path:
    file = place / f"{name}.yaml"
    file.write_text(EXPERIMENT + schedule)
    return file


def test_a_schedule_is_no_part_of_the_study(tmp_path: Path):
    plain = load_experiment(file_with(tmp_path, "", "plain"))
    assert load_experiment(file_with(tmp_path, "schedule: {cron: '0 3 * * 1'}\n")) == plain


def test_cron_lines_and_intervals_become_schedules_in_their_time_zone(tmp_path: Path):
    weekly = load_timetable(file_with(tmp_path, "schedule: {cron: '0 3 * * 1', timezone: Europe/Berlin}\n"))
    assert weekly is not None
    assert (weekly.schedule().cron, weekly.schedule().timezone) == ("0 3 * * 1", "Europe/Berlin")
    often = load_timetable(file_with(tmp_path, "schedule: {interval: 90m}\n"))
    assert often is not None
    assert often.schedule().interval == timedelta(minutes=90)
    assert often.schedule().anchor_date == often.schedule().anchor_date
    assert load_timetable(file_with(tmp_path, "")) is None


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("{cron: every day}", "schedule.cron: 'every day' is no cron line; write five fields"),
        ("{interval: 90}", "schedule.interval: is text, which YAML reads as 90"),
        ("{interval: soon}", "'soon' is no length of time; write minutes, hours, days or weeks"),
        ("{cron: '0 3 * * 1', timezone: Berlin}", "schedule.timezone: 'Berlin' is no time zone"),
        ("{cron: '0 3 * * 1', interval: 1d}", "schedule: set cron or interval, one of them"),
        ("{timezone: UTC}", "schedule: set cron or interval, one of them"),
        ("{corn: '0 3 * * 1'}", "schedule.corn: unknown field (did you mean 'cron'?)"),
    ],
)
def test_a_wrong_schedule_is_refused_in_one_sentence(tmp_path: Path, schedule: str, told: str):
    with pytest.raises(UserError) as refusal:
        load_experiment(file_with(tmp_path, f"schedule: {schedule}\n"))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_files_with_one_name_are_refused(tmp_path: Path):
    files = {file_with(tmp_path, "", name): "" for name in ("one", "two")}
    with pytest.raises(UserError, match=r"one\.yaml has the same, x; change one of them"):
        read_experiments(files, ())


def test_a_time_for_no_experiment_is_refused():
    with pytest.raises(UserError, match=r"^--cron: '0 3 \* \* 1' schedules nothing without .*; name its FILE"):
        read_experiments({}, (), "0 3 * * 1")


def test_a_deployment_asks_for_an_experiments_fields_and_not_for_text(tmp_path: Path):
    file = file_with(tmp_path, "schedule: {interval: 1d}\n")
    offered = {one.full_name: one for one in deployments(read_experiments({file: "holdfast study x.yaml"}, ()))}
    assert set(offered) == {"study/x", "study/any", "sweep/any", "data/any", "influence/any", "compare/any"}
    schema = offered["study/x"]._parameter_openapi_schema.model_dump(exclude_unset=True)
    assert schema["properties"]["config"]["$ref"] == "#/definitions/Study"
    fields = schema["definitions"]["Study"]["properties"]
    assert fields["replicates"]["type"] == "integer"
    assert fields["target"]["discriminator"]["propertyName"] == "benchmark"
    assert offered["study/x"].parameters["config"]["name"] == "x"
    assert [one.schedule.interval for one in offered["study/x"].schedules] == [timedelta(days=1)]
    assert not offered["study/any"].schedules


def test_no_deployment_says_in_which_directory_whoever_takes_its_run_works(tmp_path: Path):
    offered = [*deployments(read_experiments({file_with(tmp_path, ""): ""}, ())), watch_deployment("runs", 300.0)]
    assert [set(one.parameters) for one in offered] == [{"config", "command"}, *[set()] * 5, {"silence"}]
    # The flows' own default is where they were started.
    assert all(one._parameter_openapi_schema.properties["root"]["default"] == "." for one in offered)


def test_runs_in_files_have_a_watch_of_their_own_and_those_of_a_server_share_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def named(uri: str) -> str:
        return watch_name(cast(Store, SimpleNamespace(uri=uri)))

    for shared in ("http://mlflow:5000", "https://mlflow.example.org", "postgresql://u@db/mlflow"):
        assert named(shared) == "runs"
    alice, bob = named("sqlite:////home/alice/mlruns/mlflow.db"), named("sqlite:////home/bob/mlruns/mlflow.db")
    assert len({alice, bob, "runs"}) == 3
    monkeypatch.chdir(tmp_path)
    assert named("sqlite:///mlruns/mlflow.db") == named(f"sqlite:///{tmp_path}/mlruns/mlflow.db")


def test_prefect_yaml_names_every_flow_by_a_module_that_is_there():
    known = {(one.entrypoint, tuple(one.tags)) for one in deployments(())}
    listed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    for pool in ("team", "docker", "kubernetes"):
        mine = [one for one in listed if one["name"] == pool]
        assert {(one["entrypoint"], tuple(one["tags"])) for one in mine} == known
    for entrypoint, _ in known:
        load_flow_from_entrypoint(entrypoint)
