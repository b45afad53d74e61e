"""A process that has imported all that a small study needs, and forks one study for every line that it reads.

A study so forked runs the real flow's functions, stages and stores, without Prefect, whose retries and server the
command's own faults meet. Its stages are forked from it in turn, in place of the forkserver, which would import again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


def main() -> None:
    """Read orders, one JSON a line; answer each with the id of its process."""
    os.environ.update({"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    import flows.study  # noqa: F401
    from holdfast.stages import sources
    from tasks import worker

    for name in (*worker.PRELOAD, "mlflow.store.tracking.sqlalchemy_store", "flows.commands.main"):
        __import__(name)
    for verb in sources.ENTRIES:
        sources.source_digest(verb)
    # Whoever ordered a study reads its exit code in a file.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _child(order)
        print(pid, flush=True)


def _child(order: dict[str, Any]) -> None:
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name, number in (("stdin", 0), ("log", 1), ("log", 2)):
            path = os.devnull if name == "stdin" else order["log"]
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), number)
        code = _study(order)
    finally:
        Path(order["exit"]).write_text(str(code))
        os._exit(code)


def _study(order: dict[str, Any]) -> int:
    """What the command does, up to a stage; returns its exit code."""
    import typer

    from flows.commands.endings import failures
    from tasks import slots, worker
    from tasks.tracking import Store

    root = Path(order["root"])
    os.chdir(root)
    fork: Any = multiprocessing.get_context("fork")
    worker._forkserver = worker._spawn = fork
    # As the forkserver's children have them.
    os.register_at_fork(after_in_child=_forget_handlers)
    worker.preload = lambda: None
    slots.LOCKS = Path(order["slots"])
    calls = _counted(Store, order.get("signal"), order.get("call", 0))
    if "clock" in order:
        threading.Timer(order["after"], _set_clock, [order["clock"]]).start()
    try:
        with failures("the same command"):
            _run(root, order)
    except typer.Exit as ended:
        return ended.exit_code
    finally:
        print(f"calls: {calls[0]}", file=sys.stderr, flush=True)
    return 0


def _forget_handlers() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(root: Path, order: dict[str, Any]) -> None:
    import flows.study as flow
    from flows.commands.experiment import load_study
    from flows.graph import Replicate
    from flows.jobs import check_job
    from tasks import parent_runs, worker
    from tasks.stage import Context, run_data_stage, run_stage

    flow.run_stage, flow.run_data_stage = run_stage.fn, run_data_stage.fn
    study = load_study(root / "tiny.yaml")
    with parent_runs.study_run(root, study) as run_id, worker.children():
        context = Context(root=root, study=study, study_run=run_id)
        runner = flow.StageRunner(context, flow.study_data(context))
        if order["until"] == "data":
            return
        runner.run(check_job(study, runner.data))
        base = flow.measure_base(runner)
        if order["until"] == "evaluate":
            return
        replicate = Replicate("answers", 1)
        runs = flow.train_arm.fn(replicate, base, {}, context)
        if order["until"] == "answers":
            return
        flow.evaluate_arm.fn(replicate, runs, base, context)
        if order["until"] == "answers evaluate":
            return
        _sample(flow, runs, base, context)


def _sample(flow: Any, runs: Any, base: Any, context: Any) -> None:
    """What the other arm does before it trains: its samples become a new version of the data."""
    from flows.graph import Replicate

    class Kept(Exception):
        pass

    class Runner(flow.StageRunner):
        def keep(self, samples: Any) -> Any:
            super().keep(samples)
            print("own sample: kept", file=sys.stderr, flush=True)
            raise Kept

    with suppress(Kept):
        flow.arm_stages(
            context.study, Replicate("own", 1), base.start, {"answers": runs}, Runner(context, base.start.data)
        )


def _counted(store: Any, name: str | None, last: int) -> list[int]:
    """Count what is asked of MLflow's client; at call number `last` the signal comes, before or after it."""
    from mlflow.tracking import MlflowClient

    calls, opened = [0], store.__init__

    class Counting:
        def __init__(self, client: MlflowClient) -> None:
            self._client = client

        def __getattr__(self, method: str) -> Any:
            function = getattr(self._client, method)

            def call(*given: Any, **more: Any) -> Any:
                calls[0] += 1
                struck = name is not None and calls[0] == (last + 1) // 2
                if struck and last % 2:
                    os.kill(os.getpid(), signal.Signals[name])
                done = function(*given, **more)
                if struck and not last % 2:
                    os.kill(os.getpid(), signal.Signals[name])
                return done

            return call

    def __init__(self: Any, root: Path) -> None:
        opened(self, root)
        self.client = Counting(self.client)
        self.artifacts.client = self.artifacts.cache.client = self.client

    store.__init__ = __init__
    return calls


def _set_clock(seconds: float) -> None:
    """As far as Python sees: the kernel's own clock is the whole machine's."""
    for name, scale in (("time", 1), ("time_ns", 10**9)):
        read = getattr(time, name)
        setattr(time, name, lambda read=read, scale=scale: read() + seconds * scale)
    boot_time = psutil._pslinux.boot_time
    psutil._pslinux.boot_time = lambda: boot_time() + seconds


if __name__ == "__main__":
    main()
