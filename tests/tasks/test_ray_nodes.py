"""What can be said of Ray without Ray; its stages are in tests/flows/test_ray.py."""

from importlib.util import find_spec

import pytest

from holdfast.config.study import Compute
from holdfast.errors import UserError
from tasks import ray_nodes


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_runner_is_refused_and_the_command_that_installs_it_named():
    with pytest.raises(UserError, match="make ray"):
        ray_nodes.require_cluster(Compute(runner="ray"))


def test_a_study_for_this_machine_asks_nothing_of_ray():
    ray_nodes.require_cluster(Compute())
