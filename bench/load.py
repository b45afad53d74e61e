"""What a store of 10,000 stage runs, 8 studies at once and 1,000 metric points a second cost.

`python -m bench.load WHAT`:

    found       the smoke study, found again among its own copies, and the commands that read the store
    studies     8 studies at once on one PostgreSQL database
    tail        a stage that writes 1,000 points a second, tailed into SQLite, a server and PostgreSQL
    http        the smoke study (or FILE) with MLflow behind a server, against SQLite beside it

Each works in a directory of its own below the place for temporary files. PostgreSQL runs as the user postgres.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parents[1]
sys.path.insert(0, str(HERE / "tests" / "support"))

from servers import mlflow_server, postgres, prefect_server  # noqa: E402

from bench.store_copies import multiply  # noqa: E402

RUNS, SAME_STUDY = 10_000, 40
STUDIES, POINTS, LINES, SECONDS = 8, 1000, 50, 30
TINY = """
name: {name}
seed: {seed}
target: {{train: 16, validation: 2, test: 4}}
prior: [{{benchmark: color, questions: 4, validation: 2}}]
arms:
  answers: [{{method: sft, source: answers, trainer: &t {{max_steps: 2, per_device_train_batch_size: 4}}}}]
  teacher: [{{method: sft, source: teacher, trainer: *t}}]
evaluation: {{drift_prompts: 2}}
"""


def main(what: str, *arguments: str) -> None:
    {"found": found, "studies": studies, "tail": tail, "http": http, "client": client}[what](*arguments)


# --- a full store


def found(runs: str = str(RUNS)) -> None:
    with repository() as root:
        file = str(HERE / "experiments" / "smoke.yaml")
        print(f"smoke study, cold: {command(root, 'study', file)[0]:.1f} s")
        few = times(root, file)
        database = root / "mlruns" / "mlflow.db"
        counts = multiply(f"sqlite:///{database}", int(runs), SAME_STUDY)
        print(f"{counts['runs']:,} runs, {counts['models']:,} checkpoints, {database.stat().st_size / 2**20:.0f} MiB")
        for name, full in times(root, file).items():
            print(f"{name}: {full}; with the one study {few[name]}")


def times(root: Path, file: str) -> dict[str, str]:
    """Seconds of every command that reads the store, and of processors, the shorter of two."""
    trained = ids(root)
    asked = {
        "study found again": ("study", file),
        "show RUN": ("show", trained[0]),
        "show beginning of an id": ("show", trained[0][:10]),
        "report STUDY": ("report", "smoke"),
        "compare STUDY": ("compare", "smoke"),
        "compare RUN RUN": ("compare", *trained),
        "doctor": ("doctor",),
    }
    return {name: str(min(measured(root, *words) for _ in range(2))) for name, words in asked.items()}


class Seconds(NamedTuple):
    passed: float
    worked: float
    """By processors, which other work on the machine changes less."""

    def __str__(self) -> str:
        return f"{self.passed:.1f} s (CPU {self.worked:.1f} s)"


def measured(root: Path, *words: str) -> Seconds:
    before = os.times()
    passed, _ = command(root, *words)
    after = os.times()
    worked = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(passed, worked)


def ids(root: Path) -> list[str]:
    """The study's latest trainings of two arms that need no other arm."""
    from tasks.tracking import Store

    store = Store(root)
    arms = ("self", "answers")
    found = [store.search(f"tags.`holdfast.kind` = 'train' and tags.`holdfast.arm` = '{arm}'", most=1) for arm in arms]
    return [run.info.run_id for (run,) in found]


# --- several studies


def studies(count: str = str(STUDIES)) -> None:
    with ExitStack() as stack:
        database = stack.enter_context(database_server())
        server = stack.enter_context(prefect_server(stack.enter_context(place())))
        shared = stack.enter_context(place())
        roots = [stack.enter_context(repository()) for _ in range(int(count))]
        settings = {"MLFLOW_TRACKING_URI": database, "PREFECT_API_URL": server, "TMPDIR": str(shared)}
        done: list[tuple[float, subprocess.CompletedProcess[str]]] = []

        def run(number: int) -> None:
            # Two of each name: they share an experiment and the stages that both need.
            (roots[number] / "load.yaml").write_text(TINY.format(name=f"load{number // 2}", seed=number))
            done.append(command(roots[number], "study", "load.yaml", check=False, **settings))

        started = time.monotonic()
        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(roots))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{len(done)} studies at once: {time.monotonic() - started:.0f} s")
        failed = [one.stderr for _, one in done if one.returncode or "Traceback" in one.stderr]
        print(f"failed: {len(failed)}", *failed, sep="\n")
        tell_states(roots[0], database)


def tell_states(root: Path, database: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = database
    from tasks.tracking import Store

    states = [run.info.status for run in Store(root).search("")]
    print({state: states.count(state) for state in set(states)})


# --- tailing


def tail() -> None:
    with place() as here:
        tailed("SQLite", here, "")
    with place() as here, place() as server, mlflow_server(server) as uri:
        tailed("MLflow server on SQLite", here, uri)
    with place() as here, database_server() as uri:
        tailed("PostgreSQL", here, uri)


def tailed(name: str, root: Path, uri: str) -> None:
    """Run a stage that writes points on time and nothing else; how late do they stand in the store?"""
    script = [sys.executable, "-m", "bench.load_tail", str(root), str(SECONDS), str(POINTS), str(LINES)]
    done = subprocess.run(
        script, cwd=HERE, env=environment(root, MLFLOW_TRACKING_URI=uri), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    print(f"{name}: {done.stdout.strip()}")


# --- over HTTP


def http(file: str = "experiments/smoke.yaml", rounds: str = "3") -> None:
    """The study again and again in a new directory, in turn beside its database and behind a server."""
    seconds: dict[str, list[float]] = {"SQLite": [], "HTTP": []}
    spent: dict[str, list[float]] = {"SQLite": [], "HTTP": []}
    for _ in range(int(rounds)):
        for kind in seconds:
            with ExitStack() as stack:
                root = stack.enter_context(repository())
                uri = stack.enter_context(mlflow_server(stack.enter_context(place()))) if kind == "HTTP" else ""
                script = [sys.executable, "-m", "bench.load", "client", str(HERE / file)]
                began = time.monotonic()
                done = subprocess.run(
                    script, cwd=root, env=environment(root, MLFLOW_TRACKING_URI=uri), capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                seconds[kind].append(time.monotonic() - began)
                spent[kind].append(json.loads(done.stdout.splitlines()[-1])["seconds"])
                print(f"{kind}: {seconds[kind][-1]:.1f} s, {spent[kind][-1]:.1f} s in MLflow's client", flush=True)
    middle = {kind: statistics.median(values) for kind, values in seconds.items()}
    print(f"medians {middle}, ratio {middle['HTTP'] / middle['SQLite']:.3f}")


def client(file: str) -> None:
    """Run a study in this process and tell how long its threads were inside calls of MLflow's client, added up."""
    from mlflow import MlflowClient

    spent: dict[str, list[float]] = {}

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*given: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return call(*given, **named)
            finally:
                spent.setdefault(call.__name__, []).append(time.monotonic() - began)

        return inner

    for name, call in list(vars(MlflowClient).items()):
        if callable(call) and not name.startswith("_"):
            setattr(MlflowClient, name, timed(call))
    from flows.commands.main import app

    app(["study", file], standalone_mode=False)
    calls = {name: (len(of), round(sum(of), 2)) for name, of in spent.items()}
    longest = dict(sorted(calls.items(), key=lambda item: -item[1][1]))
    print(json.dumps({"seconds": sum(map(sum, spent.values())), "calls": longest}))


# --- places and processes


@contextmanager
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hfload", ignore_cleanup_errors=True) as here:
        yield Path(here)


@contextmanager
def repository() -> Iterator[Path]:
    """A directory with git and DVC."""
    with place() as root:
        subprocess.run(["git", "init", "-q", str(root)], check=True)
        subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
        yield root


@contextmanager
def database_server() -> Iterator[str]:
    with place() as here:
        here.chmod(0o755)
        with postgres(here, "load-test-password") as uri:
            yield uri


def environment(root: Path, **settings: str) -> dict[str, str]:
    found = {**os.environ, "PREFECT_HOME": str(root / ".prefect"), "PYTHONPATH": str(HERE)}
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        found.pop(name, None)
    return {**found, **{name: value for name, value in settings.items() if value}}


def command(
    root: Path, *words: str, check: bool = True, **settings: str
) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of a command, its start included, and what it said."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows", *words],
        cwd=root,
        env=environment(root, **settings),
        capture_output=True,
        text=True,
    )
    if check and done.returncode:
        raise RuntimeError(f"{words}: {done.stderr}")
    return time.monotonic() - began, done


if __name__ == "__main__":
    main(*sys.argv[1:])
