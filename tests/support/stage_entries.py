"""What the children of these tests run in place of a real stage: cheap, but with a real journal and real files."""

import errno
import json
import os
import signal
import time
from pathlib import Path

from holdfast.config.ranks import Rank
from holdfast.config.refs import file_digest
from holdfast.config.results import Checkpoint, Result
from holdfast.journal import Journal

STEPS = 6
COMMIT = "c" * 40


def reads_from_the_hub(job: str, out: str) -> None:
    """The real stage, whose data sets lie in the cache as the Hub's do: in a directory that has the commit's name."""
    import datasets

    from holdfast.stages.process import run_job

    datasets.Dataset.cache_files = property(lambda _: [{"filename": f"/cache/data/0.0.0/{COMMIT}/data-train.arrow"}])
    run_job(job, out)


def steps(job: str, out: str) -> None:
    """Six steps with two checkpoints, continued where an earlier attempt stopped."""
    _work(Path(out), pause=0.0)


def slow_steps(job: str, out: str) -> None:
    _work(Path(out), pause=0.3)


def killed_once(job: str, out: str) -> None:
    """Kills itself at step 4 unless an earlier attempt did."""
    again = (Path(out) / "again").exists()
    (Path(out) / "again").touch()
    _work(Path(out), pause=0.1, kill_at=None if again else 4)


def user_error(job: str, out: str) -> None:
    print("asked")
    (Path(out) / "error.json").write_text(json.dumps({"message": "images.path: /nowhere is missing; name a directory"}))
    raise SystemExit(2)


def unwritten_error(job: str, out: str) -> None:
    (Path(out) / "error.json").touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def crash(job: str, out: str) -> None:
    raise RuntimeError("the optimizer tripped")


def span(job: str, out: str) -> None:
    """Leaves when it ran, in wall time."""
    began = time.time()
    time.sleep(0.5)
    _finish(Path(out), {"began": began, "ended": time.time()}, [], [])


def environment(job: str, out: str) -> None:
    _finish(Path(out), {"group": os.getpgrp(), "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}, [], [])


def records(job: str, out: str) -> None:
    """Leaves every file that the job names."""
    names = list(json.loads(Path(job).read_text())["units"].values())
    for name in names:
        (Path(out) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(out) / name).write_text(name)
    _finish(Path(out), {}, [], names)


def _work(out: Path, pause: float, kill_at: int | None = None) -> None:
    # As a real training does, it goes back to its last checkpoint and repeats what came after.
    saved = max(out.glob("saved-*"), default=None)
    start = int(saved.name.removeprefix("saved-")) if saved else -1
    journal = Journal(out)
    if saved:
        journal.restore(saved)
    checkpoints, files = [], []
    for step in range(STEPS + 1):
        if step % 3 == 0:
            name = f"checkpoints/step-{step:06d}"
            (out / name).mkdir(parents=True, exist_ok=True)
            weights = out / name / "model.safetensors"
            weights.write_bytes(bytes([step]) * 100)
            checkpoints.append(Checkpoint(step=step, path=name, digest=file_digest(weights)))
            files.append(f"{name}/model.safetensors")
        if step <= start:
            continue
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        journal.log(step, {"train/loss": 1.0 / (step + 1)})
        if step % 3 == 0:
            journal.log(step, {"target/jigsaw/score": step / STEPS}, checkpoints[-1].model_dump())
            journal.save(out / f"saved-{step}")
        journal.progress(step, STEPS, loss=1.0 / (step + 1))
        time.sleep(pause)
    _finish(out, {}, checkpoints, files)


def _finish(out: Path, notes: dict, checkpoints: list[Checkpoint], files: list[str]) -> None:
    recorded = [name for name in ("job.json", "metrics.jsonl") if (out / name).is_file()]
    digests = {name: file_digest(out / name) for name in [*files, *recorded]}
    result = Result(checkpoints=tuple(checkpoints), files=digests, seconds=1.5, peak_memory_mb=10.0, notes=notes)
    (out / "result.json").write_text(result.model_dump_json())


def tells_a_secret(job: str, out: str) -> None:
    print("the key is planted-in-a-stage", flush=True)
    raise RuntimeError("refused: planted-in-a-stage")


def second_dies(job: str, out: str, rank: Rank) -> None:
    """Its first rank would wait for ever for the second, which an earlier attempt keeps alive."""
    if rank.number == 0:
        while not (Path(out) / "there").exists():
            time.sleep(0.01)
        _finish(Path(out), {"ranks": rank.size, "meeting": rank.meeting}, [], [])
    elif (Path(out) / "again").exists():
        (Path(out) / "there").touch()
        time.sleep(60)
    else:
        (Path(out) / "again").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def second_refuses(job: str, out: str, rank: Rank) -> None:
    if rank.number:
        user_error(job, out)
    time.sleep(60)
