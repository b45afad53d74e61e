import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.config import Jigsaw, Recipe, World
from holdfast.jobs import BuildBase, MakeData
from tasks import slots
from tasks.slots import Stopped

LISTING = """#!/bin/sh
echo 'GPU 0: NVIDIA H200 (UUID: GPU-aaaa0000-1111)'
echo 'GPU 1: NVIDIA H200 (UUID: GPU-bbbb0000-2222)'
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine whose nvidia-smi lists two GPUs."""
    program = tmp_path / "nvidia-smi"
    program.write_text(LISTING)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(slots, "PLACE", tmp_path / "slots")
    slots.gpus.cache_clear()
    yield
    slots.gpus.cache_clear()


def hurried() -> threading.Event:
    """Gives up instead of waiting."""
    event = threading.Event()
    event.set()
    return event


def base(device: str = "auto") -> BuildBase:
    return BuildBase(recipe=Recipe(), device=device)


def test_every_gpu_holds_one_stage(two_gpus):
    with ExitStack() as stack:
        held = [stack.enter_context(slots.slot(base(), None, hurried())) for _ in range(2)]
        assert held == ["GPU-aaaa0000-1111", "GPU-bbbb0000-2222"]
        with pytest.raises(Stopped):
            stack.enter_context(slots.slot(base(), None, hurried()))
    with slots.slot(base(), None, hurried()) as gpu:
        assert gpu == "GPU-aaaa0000-1111"


def test_only_visible_gpus_are_used(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert slots.gpus() == ("GPU-bbbb0000-2222",)


@pytest.mark.parametrize("visible", ["", "-1", "7"])
def test_hidden_gpus_are_not_used(two_gpus, monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.gpus() == ()
    assert not slots.uses_gpu(base())


def test_data_and_stages_told_to_use_the_cpu_leave_gpus_alone(two_gpus):
    assert slots.uses_gpu(base())
    assert not slots.uses_gpu(base("cpu"))
    assert not slots.uses_gpu(MakeData(images=World(), target=Jigsaw(), prior=()))


def test_a_lock_is_exclusive_and_free_again_afterwards(tmp_path):
    with slots.held(tmp_path / "key", hurried()), pytest.raises(Stopped), slots.held(tmp_path / "key", hurried()):
        pass
    with slots.held(tmp_path / "key", hurried()):
        pass


def test_who_comes_first_is_served_first(two_gpus):
    """With both GPUs taken, three wait; the one that becomes free is theirs in the order in which they came."""
    served: list[int] = []
    patient = threading.Event()

    def wait(number: int) -> None:
        with slots.slot(base(), None, patient):
            served.append(number)

    waiting = [threading.Thread(target=wait, args=(number,)) for number in range(3)]
    with slots.slot(base(), None, hurried()):
        with slots.slot(base(), None, hurried()):
            for number, thread in enumerate(waiting):
                thread.start()
                until(lambda number=number: len(tickets()) == number + 1)
        for thread in waiting:
            thread.join(timeout=10)
    assert served == [0, 1, 2]
    assert tickets() == []


def test_the_dead_are_not_waited_for(two_gpus):
    queue = slots.PLACE / "queue-gpu-GPU-aaaa0000-1111"
    queue.mkdir(parents=True)
    (queue / "00000000000000000001-1-1").touch()
    with slots.slot(base(), None, hurried()) as gpu:
        assert gpu == "GPU-aaaa0000-1111"
    assert tickets() == []


def test_who_gives_up_waiting_leaves_the_queue(two_gpus):
    with slots.slot(base(), None, hurried()), slots.slot(base(), None, hurried()):
        with pytest.raises(Stopped), slots.slot(base(), None, hurried()):
            pass
        assert tickets() == []


def tickets() -> list[Path]:
    return list(slots.PLACE.glob("queue-*/*"))


def until(ready: Callable[[], bool]) -> None:
    for _ in range(500):
        if ready():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within five seconds")
