import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml


@pytest.mark.parametrize("target", ["study", "setup", "test", "test-all", "faults", "lint", "ui", "lock"])
def test_every_target_of_the_makefile_is_sound(target: str):
    dry = subprocess.run(["make", "--dry-run", target], capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr


def test_make_study_runs_the_default_study():
    dry = subprocess.run(["make", "--dry-run", "study"], capture_output=True, text=True).stdout
    assert ".venv/bin/holdfast study experiments/bundled.yaml" in dry.splitlines()


def test_ci_runs_what_people_run():
    assert "make test" in Path(".ci/run").read_text()


def test_the_lock_file_pins_every_dependency_and_names_no_place():
    lines = Path("requirements.lock").read_text().splitlines()
    pinned = {re.split(r"[=\[]", line)[0] for line in lines}
    assert all(re.match(r"[\w.-]+(\[[\w,-]+\])?==", line) for line in lines)
    assert not any("://" in line or "/" in line.split(";")[0] for line in lines)
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in wanted} <= pinned


def test_compose_publishes_ports_on_this_machine_only():
    services = yaml.safe_load(Path("docker-compose.yml").read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_worker_waits_for_servers_that_say_they_are_well():
    services = yaml.safe_load(Path("docker-compose.yml").read_text())["services"]
    for name, state in services["worker"]["depends_on"].items():
        assert state == {"condition": "service_healthy"}
        assert services[name]["healthcheck"]["test"][0] == "CMD"


def test_experiments_named_in_the_readme_are_there():
    named = re.findall(r"experiments/[\w.-]+\.yaml", Path("README.md").read_text())
    assert named
    assert all(Path(name).is_file() for name in named)
