import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.interrupts import Uninterrupted
from tasks.tracking import Point, Store


@pytest.fixture(autouse=True)
def _hears_interrupts() -> Iterator[None]:
    """Whoever starts the tests in the background has them ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


class Client:
    def __init__(self) -> None:
        self.ended = False

    def write(self, times: int) -> str:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        self.ended = True
        return "written"


def test_a_call_ends_before_the_interrupt_is_raised():
    client = Client()
    with pytest.raises(KeyboardInterrupt):
        Uninterrupted(client).write(1)
    assert client.ended
    assert Uninterrupted(client).write(0) == "written"
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_second_interrupt_does_not_wait():
    client = Client()
    with pytest.raises(KeyboardInterrupt):
        Uninterrupted(client).write(2)
    assert not client.ended


def test_an_interrupt_at_any_moment_of_a_write_is_an_interrupt_and_leaves_a_store_that_works(root: Path):
    store = Store(root)
    run_id = store.begin("some", "run", {})
    moments, interrupted, started = random.Random(0), 0, time.monotonic()
    handler = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        for step in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.0002, 0.004))
                store.log(run_id, [Point("loss", 1.0, step, step)])
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert interrupted
    # A connection that is left half open keeps the next write waiting for 20 seconds.
    assert time.monotonic() - started < 15
    store.log(run_id, [Point("loss", 1.0, 100, 1.0)])
    assert ("loss", 100) in store.logged(run_id)
    store.end(run_id, "FINISHED")
