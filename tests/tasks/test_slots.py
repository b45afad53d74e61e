import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from stage_runs import job

from holdfast.config.images import World
from holdfast.config.jobs import BuildBase, MakeData, Train
from holdfast.config.model import Recipe
from holdfast.config.targets import Jigsaw
from holdfast.errors import UserError
from tasks import slots
from tasks.resource_usage import ResourceUsage
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
    monkeypatch.setattr(slots, "LOCKS", tmp_path / "slots")
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


def together(gpus: int, device: str = "auto") -> Train:
    return job(Path()).model_copy(update={"gpus": gpus, "device": device})


def test_every_gpu_holds_one_stage(two_gpus):
    with ExitStack() as stack:
        held = [stack.enter_context(slots.slot(base(), None, hurried())) for _ in range(2)]
        assert held == ["GPU-aaaa0000-1111", "GPU-bbbb0000-2222"]
        with pytest.raises(Stopped):
            stack.enter_context(slots.slot(base(), None, hurried()))
    with slots.slot(base(), None, hurried()) as gpu:
        assert gpu == "GPU-aaaa0000-1111"


def test_several_gpus_are_collected_together_or_not_at_all(two_gpus, monkeypatch):
    """Two studies that see the same GPUs in another order would else each hold one and wait for the other's."""
    several = together(2)
    with slots.slot(base(), None, hurried()), pytest.raises(Stopped), slots.slot(several, None, hurried()):
        pass
    with slots.slot(several, None, hurried()) as both:
        assert both == "GPU-aaaa0000-1111,GPU-bbbb0000-2222"
        with pytest.raises(Stopped), slots.slot(base(), None, hurried()):
            pass
    served: list[str] = []

    def collect() -> None:
        for _ in range(20):
            with slots.slot(several, None, threading.Event()) as held:
                served.append(held)

    orders = iter([("GPU-aaaa0000-1111", "GPU-bbbb0000-2222"), ("GPU-bbbb0000-2222", "GPU-aaaa0000-1111")] * 200)
    with monkeypatch.context() as patch:
        patch.setattr(slots, "gpus", lambda: next(orders))
        patch.setattr(slots, "POLL", 0.002)
        collectors = [threading.Thread(target=collect, daemon=True) for _ in range(2)]
        for collector in collectors:
            collector.start()
        for collector in collectors:
            collector.join(timeout=20)
    assert len(served) == 40


def test_more_gpus_than_there_are_are_refused(two_gpus):
    with (
        pytest.raises(UserError, match=r"compute\.gpus: 8, and this machine has 2; lower it"),
        slots.slot(together(8), None, hurried()),
    ):
        pass
    pairs = [slots.slot(together(2, "cpu"), 4, hurried()) for _ in range(3)]
    with pairs[0], pairs[1], pytest.raises(Stopped), pairs[2]:
        pass


def test_only_visible_gpus_are_used(two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert slots.gpus() == ("GPU-bbbb0000-2222",)


INSTANCES = """#!/bin/sh
echo 'GPU 0: NVIDIA H100 (UUID: GPU-aaaa0000-1111)'
echo '  MIG 1g.10gb     Device  0: (UUID: MIG-cccc0000-3333)'
echo '  MIG 1g.10gb     Device  1: (UUID: MIG-dddd0000-4444)'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-bbbb0000-2222)'
"""


@pytest.mark.parametrize(
    ("visible", "used"),
    [
        (None, ("MIG-cccc0000-3333", "MIG-dddd0000-4444", "GPU-bbbb0000-2222")),
        ("MIG-dddd0000-4444", ("MIG-dddd0000-4444",)),
        ("MIG-GPU-aaaa0000-1111/1/0", ("MIG-GPU-aaaa0000-1111/1/0",)),
        ("0", ("MIG-cccc0000-3333",)),
        ("GPU-bbbb", ("GPU-bbbb0000-2222",)),
        ("1,0,-1,1", ("GPU-bbbb0000-2222", "MIG-cccc0000-3333")),
        ("1,1", ("GPU-bbbb0000-2222",)),
        ("GPU-eeee", ()),
        ("NoDevFiles", ()),
    ],
)
def test_parts_of_gpus_are_used_as_cuda_would_use_them(two_gpus, tmp_path, monkeypatch, visible, used):
    (tmp_path / "nvidia-smi").write_text(INSTANCES)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.gpus() == used
    for name in used:
        with slots.slot(base(), None, hurried()) as gpu:
            assert gpu == used[0]
        assert name


@pytest.mark.parametrize(
    ("visible", "devices", "used"),
    [
        ("MIG-cccc0000-3333", 0, ("MIG-cccc0000-3333",)),
        ("GPU-aaaa0000-1111,GPU-bbbb0000-2222", 0, ("GPU-aaaa0000-1111", "GPU-bbbb0000-2222")),
        ("1", 0, ("1",)),
        ("-1", 2, ()),
        ("", 2, ()),
        (None, 2, ("",)),
        (None, 0, ()),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_without_nvidia_smi_stages_share_no_gpu(tmp_path, monkeypatch, visible, devices, used):
    """Drivers that show some GPUs, of which nothing tells how many may be used, give room for one stage."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    for number in range(devices):
        (tmp_path / f"nvidia{number}").touch()
    monkeypatch.setattr(slots, "DRIVERS", (str(tmp_path / "nvidia[0-9]*"),))
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert slots.gpus() == used
    assert slots.uses_gpu(base()) == bool(used)
    assert slots.uses_gpu(base("cuda"))
    assert not slots.uses_gpu(base("cpu"))
    if used == ("",):
        with slots.slot(base(), 4, hurried()) as gpu, pytest.raises(Stopped), slots.slot(base(), 4, hurried()):
            pass
        assert gpu == ""


def test_what_nvidia_smi_cannot_tell_of_an_instance_is_left_out(two_gpus, tmp_path, monkeypatch):
    usage = ResourceUsage([None], "MIG-cccc0000-3333")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '[N/A], 1234'\n")
    assert usage._gpu() == {"system/gpu_memory_usage_megabytes": 1234.0}
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert usage._gpu() == {}


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
    with (
        slots.file_lock(tmp_path / "key", hurried()),
        pytest.raises(Stopped),
        slots.file_lock(tmp_path / "key", hurried()),
    ):
        pass
    with slots.file_lock(tmp_path / "key", hurried()):
        pass


def one_after_another(waiting: list[threading.Thread]) -> None:
    """Each begins to wait behind the one before it, while both GPUs are taken; then one becomes free."""
    with slots.slot(base(), None, hurried()):
        with slots.slot(base(), None, hurried()):
            for number, thread in enumerate(waiting):
                thread.start()
                until(lambda number=number: len(tickets()) == number + 1)
        for thread in waiting:
            thread.join(timeout=10)


def test_who_comes_first_is_served_first(two_gpus):
    """With both GPUs taken, three wait; the one that becomes free is theirs in the order in which they came."""
    served: list[int] = []
    patient = threading.Event()

    def wait(number: int) -> None:
        with slots.slot(base(), None, patient):
            served.append(number)

    one_after_another([threading.Thread(target=wait, args=(number,)) for number in range(3)])
    assert served == [0, 1, 2]
    assert tickets() == []


def test_a_stage_that_goes_first_is_served_before_those_that_wait(two_gpus):
    served: list[str] = []

    def wait(name: str, first: bool) -> None:
        with slots.slot(base(), None, threading.Event(), first):
            served.append(name)

    asked = (("train", False), ("more", False), ("measure", True))
    one_after_another([threading.Thread(target=wait, args=one) for one in asked])
    # Who has the turn already keeps it; whoever waits behind is passed.
    assert sorted(served) == ["measure", "more", "train"]
    assert served.index("measure") < served.index("more")


def test_the_dead_are_not_waited_for(two_gpus):
    queue = slots.LOCKS / "queue-gpu-GPU-aaaa0000-1111"
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
    return list(slots.LOCKS.glob("queue-*/*"))


def until(ready: Callable[[], bool]) -> None:
    for _ in range(500):
        if ready():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within five seconds")
