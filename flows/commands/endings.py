"""How a command ends: its exit code, and what it says of what failed.

Only light imports stand at the top, as in `main`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flows.commands.environment import Terminated, prepare_process
from holdfast.config.ranks import require_one_rank
from holdfast.errors import UserError

if TYPE_CHECKING:
    from flows.study import ArmsFailed


@contextmanager
def failures(command: str) -> Iterator[None]:
    """A mistake of the user's ends in one line and exit code 2, a failed stage in 1, Ctrl-C in 130, SIGTERM in 143."""
    try:
        prepare_process(Path.cwd())
        require_one_rank()
        yield
    except typer.Exit:
        raise
    except UserError as error:
        _echo(f"holdfast: {error}")
        raise typer.Exit(2) from None
    except (KeyboardInterrupt, Terminated) as error:
        typer.echo(f"Stopped. What finished is kept; this continues: {command}", err=True)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 143) from None
    except Exception as error:
        _print_failure(error)
        raise typer.Exit(1) from None


@contextmanager
def told_failures(command: str) -> Iterator[None]:
    """The report of what finished, what failed, and the command that tries it again."""
    from flows.commands.results import print_outcome
    from flows.study import ArmsFailed

    try:
        yield
    except ArmsFailed as error:
        if error.outcome is not None:
            print_outcome(error.outcome.report, error.outcome.summary)
        print_failures(error)
        typer.echo(f"What finished is kept; this tries the rest again: {command}", err=True)
        raise typer.Exit(1) from None


def print_failures(error: ArmsFailed) -> None:
    """What failed of each arm."""
    for arm, reason in error.failed.items():
        _print_failure(reason, f"{arm} failed: ")


def _print_failure(error: Exception, prefix: str = "") -> None:
    """A failed stage has its own last lines in its message, the disk and servers a sentence; the rest a traceback."""
    from flows.commands.failures import outside
    from tasks.worker import StageFailed

    told = str(error) if isinstance(error, UserError | StageFailed) else outside(error)
    if not told:
        _echo("".join(traceback.format_exception(error)).rstrip())
    _echo(f"holdfast: {prefix}{told or error}")


def _echo(text: str) -> None:
    from tasks.redaction import shown

    typer.echo(shown(text), err=True)
