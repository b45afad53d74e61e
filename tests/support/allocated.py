"""What torch allocates on a CPU, by its profiler."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak(read: Callable[[], object]) -> int:
    """Bytes that were allocated at a time, at most."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        read()
    assert seen.profiler is not None
    now = most = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda one: one.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most
