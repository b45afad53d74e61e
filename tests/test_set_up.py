import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from servers import free_port

TARGETS = [
    *("study", "setup", "test", "test-all", "faults", "lint", "ui", "lock", "audit", "sbom"),
    *("image", "stack", "stack-down", "stack-test"),
]


@pytest.mark.parametrize("target", TARGETS)
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
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"]]
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in wanted} <= pinned
    more = {re.split(r"[=\[]", line)[0] for line in Path("requirements-team.lock").read_text().splitlines()}
    assert {re.split(r"[<>=\[]", name)[0].lower() for name in extras["team"]} <= pinned | more


def services() -> dict[str, Any]:
    return yaml.safe_load(Path("docker-compose.yml").read_text())["services"]


def test_compose_publishes_ports_on_this_machine_unless_told_otherwise():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("${STACK_ADDRESS:-127.0.0.1}:") for port in ports)


def test_every_service_has_its_limits_and_an_image_with_an_exact_tag():
    for name, service in services().items():
        assert re.fullmatch(r"[\w/]+:\d[\w.-]+", service["image"]), name
        assert service["mem_limit"], name
        assert service["cpus"], name
        # What ends by itself is well when it has ended.
        assert ("healthcheck" in service) == (service["restart"] != "no"), name
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|AUTH_STRING", variable):
                assert value.startswith("${"), (name, variable)


def test_the_image_runs_the_command_that_it_is_given():
    lines = Path("Dockerfile").read_text().splitlines()
    assert not any(line.lstrip().upper().startswith("ENTRYPOINT") for line in lines), "it swallows the command"
    assert lines[-1] == 'CMD ["holdfast", "--help"]'
    programs = ("holdfast", "prefect", "/holdfast/stack/mlflow.sh", "/holdfast/stack/setup.sh")
    for name, service in services().items():
        if service["image"].startswith("holdfast/"):
            assert [*service.get("entrypoint", []), *service.get("command", [])][0] in programs, name


def test_services_wait_for_those_that_say_they_are_well():
    for name, service in services().items():
        for other, state in service.get("depends_on", {}).items():
            if other == "setup":
                assert state == {"condition": "service_completed_successfully"}
            else:
                assert state == {"condition": "service_healthy"}, name
                assert services()[other]["healthcheck"]["test"][0] == "CMD"


def test_the_stacks_secrets_are_random_for_their_owner_and_written_once(tmp_path: Path):
    files = [tmp_path / "one.env", tmp_path / "two.env"]
    for file in (*files, files[0]):
        before = file.read_text() if file.exists() else None
        subprocess.run(["stack/secrets.sh", str(file)], check=True, capture_output=True)
        assert before in (None, file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
    one, two = (dict(line.split("=") for line in file.read_text().splitlines()[1:]) for file in files)
    secret = {name for name in one if re.search("PASSWORD|SECRET|AUTH_STRING", name)}
    assert len(secret) == 7
    assert all(one[name] != two[name] and len(one[name]) >= 48 for name in secret)
    # What an interrupted run of it leaves has the passwords, too.
    for name in ("stack.env", "stack.env.partial"):
        assert subprocess.run(["git", "check-ignore", "-q", name], check=False).returncode == 0, name


def test_experiments_named_in_the_readme_are_there():
    named = re.findall(r"experiments/[\w.-]+\.yaml", Path("README.md").read_text())
    assert named
    assert all(Path(name).is_file() for name in named)


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """A target of the Makefile with this environment's programs."""
    command = ["make", "-s", "-o", ".venv/ready", target, f"BIN={Path(sys.executable).parent}", *variables]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_nothing_that_is_locked_has_a_known_vulnerability():
    asked = make("audit")
    if asked.returncode and "known vulnerabilit" not in asked.stderr:
        last = [line for line in asked.stderr.splitlines() if not line.startswith("make")][-1:]
        pytest.skip(f"NOT AUDITED, nobody could be asked about vulnerabilities: {last}")
    assert asked.returncode == 0, asked.stdout


@pytest.mark.slow
def test_the_bill_of_materials_has_everything_that_is_locked():
    made = make("sbom")
    if made.returncode and ("Failed to fetch" in made.stderr or "No solution found" in made.stderr):
        pytest.skip("cyclonedx-bom cannot be fetched here")
    assert made.returncode == 0, made.stderr
    bill = json.loads(Path("sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "holdfast"
    named = {f"{part['name']}=={part['version']}" for part in bill["components"]}
    locked = {
        re.sub(r"\[.*\]", "", line.split(";")[0]).strip() for line in Path("requirements.lock").read_text().splitlines()
    }
    assert named == locked


def listening(process: psutil.Process) -> set[str]:
    """The addresses on which a process or one of its children listens."""
    found = set()
    for one in (process, *process.children(recursive=True)):
        found |= {c.laddr.ip for c in one.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
    return found


@pytest.mark.slow
def test_servers_that_make_ui_starts_listen_on_this_machine_only(tmp_path: Path):
    ports = [free_port(), free_port()]
    command = ["make", "-s", "-f", str(Path("Makefile").resolve()), "-o", ".venv/ready", "ui"]
    command += [f"BIN={Path(sys.executable).parent}", f"MLFLOW_PORT={ports[0]}", f"PREFECT_PORT={ports[1]}"]
    (tmp_path / "mlruns").mkdir()
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    settings = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    process = subprocess.Popen(command, cwd=tmp_path, env=settings, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        for path in (f"{ports[0]}/health", f"{ports[1]}/api/health"):
            while not answers(f"http://127.0.0.1:{path}"):
                assert time.monotonic() < deadline
                time.sleep(0.2)
        assert listening(psutil.Process(process.pid)) <= {"127.0.0.1", "::1"}
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
def test_the_server_that_a_study_starts_listens_on_this_machine_only(monkeypatch: pytest.MonkeyPatch):
    from flows.commands.server import prefect_server

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with prefect_server() as ready:
        ready()
        assert listening(psutil.Process()) == {"127.0.0.1"}
