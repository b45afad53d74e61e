"""Repositories of their own for whole runs of the command line: real processes, a real server, DVC and MLflow."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class CommandResult(NamedTuple):
    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> Path:
        return Path(self.stdout.split("Report: ")[1].strip())


def new_repository(root: Path, experiment: dict[str, Any]) -> None:
    """With git, DVC and one experiment, NAME.yaml."""
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    (root / f"{experiment['name']}.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))


def holdfast(root: Path, places: str, *arguments: str, **settings: str) -> CommandResult:
    """Run a command in a repository; `settings` are environment variables."""
    # Room for stages is shared by a machine's studies, through locks in its directory for temporary files.
    environment = {**os.environ, "PREFECT_HOME": str(root / ".prefect"), "COLUMNS": "160", "TMPDIR": places}
    for name in ("PREFECT_API_URL", "PREFECT_LOGGING_LEVEL", "MLFLOW_TRACKING_URI"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(command, cwd=root, env={**environment, **settings}, capture_output=True, text=True)
    return CommandResult(done.returncode, done.stdout, done.stderr)
