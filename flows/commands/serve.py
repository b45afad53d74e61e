"""A study or a sweep as a Prefect deployment, for runs on request and by schedule.

By module entrypoint: one by path would put flows/ first on sys.path, where its modules would hide libraries.
"""

from __future__ import annotations

import os
from pathlib import Path

from prefect.deployments.runner import EntrypointType
from prefect.settings import get_current_settings

from flows.commands.server import check_server
from flows.study import study
from flows.sweep import sweep
from holdfast.config.study import Study
from holdfast.config.sweep import Sweep
from holdfast.errors import UserError
from tasks.tracking import open_store


def serve_experiment(config: Study | Sweep, command: str, cron: str | None = None) -> None:
    """Run it whenever the Prefect server asks, until stopped; `command` does the same by hand.

    UserError without a server.
    """
    if get_current_settings().api.url is None:
        raise UserError(
            "PREFECT_API_URL: is not set; start a server with `make ui` and set its address, ending in /api."
        )
    check_server()
    open_store(Path.cwd())
    flow = sweep if isinstance(config, Sweep) else study
    flow.serve(
        name=config.name,
        cron=cron,
        parameters={"config": config.model_dump(mode="json"), "command": command, "root": os.fspath(Path.cwd())},
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
