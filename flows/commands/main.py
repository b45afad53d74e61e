"""The `holdfast` command line.

Only light imports stand at the top: every stage's process imports this module again, and `--help` has to be quick.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from flows.commands import grading
from flows.commands.endings import failures, print_failures, told_failures

if TYPE_CHECKING:
    from holdfast.config.study import Study
    from holdfast.config.sweep import Sweep

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="What does a vision-language model keep while it learns something new?",
)

app.add_typer(grading.app)

SERVERS = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")

File = Annotated[Path, typer.Argument(help="An experiment, for example experiments/bundled.yaml.", show_default=False)]
Set = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, for example target.grid=[3,3]."),
]


@app.command()
def study(file: File, overrides: Set = None) -> None:
    """Run a study, or all studies of a sweep. The same command continues one that was interrupted."""
    command = _command(file, overrides)
    with failures(command):
        from flows.commands.experiment import load_experiment, studies_of

        experiment = load_experiment(file, overrides or ())
        from tasks.worker import preload

        _probe_store()
        if not any(name in os.environ for name in SERVERS) and not Path("mlruns/mlflow.db").is_file():
            # Nothing can be found, so a stage will run: its imports take as long as the server's start.
            preload()
        from flows.commands.server import prefect_server

        with prefect_server() as ready:
            from flows.commands.plan import plan, plan_lines

            plans = [plan(config, Path.cwd()) for config in studies_of(experiment)]
            typer.echo("\n".join(plan_lines(experiment, plans)), err=True)
            if not all(work.found for works in plans for work in works):
                preload()
            ready()
            _run(experiment, command)


def _run(experiment: Study | Sweep, command: str) -> None:
    from flows.commands.results import print_outcome
    from holdfast.config.sweep import Sweep

    with told_failures(command):
        if isinstance(experiment, Sweep):
            from flows.sweep import sweep

            outcome = sweep(experiment, command)
        else:
            from flows.study import study as run

            outcome = run(experiment, command)
    print_outcome(outcome.report, outcome.summary)
    if outcome.failed:
        typer.echo(
            f"Left out by the budget: {len(outcome.failed)} trainings; this goes on with them: {command}", err=True
        )


@app.command()
def data(
    file: File,
    overrides: Set = None,
    accept: Annotated[bool, typer.Option(help="Record data that differs from data.dvc as its new version.")] = False,
) -> None:
    """Make, restore or verify the data of a study or a sweep, and nothing else."""
    with failures(f"holdfast data {file}"):
        from flows.commands.experiment import load_experiment, studies_of

        experiment = load_experiment(file, overrides or ())
        from flows.commands.server import prefect_server

        _probe_store()
        with prefect_server() as ready:
            from flows.study import dataset

            _open_store()

            ready()
            for config in studies_of(experiment):
                version = dataset(config, accept=accept)
            typer.echo(f"data.dvc: {version}")


@app.command()
def preflight(
    file: File,
    overrides: Set = None,
    steps: Annotated[bool, typer.Option(help="Also take some steps of every stage, on its longest samples.")] = True,
) -> None:
    """What a study needs against what is there: prompts, memory, disk, hours. Makes its data and trains nothing."""
    with failures(f"holdfast preflight {file}"):
        from flows.commands.experiment import load_experiment, studies_of

        experiment = load_experiment(file, overrides or ())
        from flows.commands.server import prefect_server

        _probe_store()
        with prefect_server() as ready:
            from flows.commands.preflight import lines
            from flows.preflight import preflight as look

            _open_store()
            ready()
            for config in studies_of(experiment):
                found = look(config, tried=steps)
                typer.echo("\n".join(lines(config, found, Path.cwd())))


@app.command()
def show(run: Annotated[str, typer.Argument(help="An MLflow run id, or the beginning of one.")]) -> None:
    """Show a run: what it was, its last metrics, where its files lie."""
    with failures(f"holdfast show {run}"):
        from flows.commands.results import show_run

        show_run(run, Path.cwd())


@app.command()
def report(name: Annotated[str, typer.Argument(metavar="STUDY", help="The name in the experiment's file.")]) -> None:
    """Print the latest report's table and where the report is."""
    with failures(f"holdfast report {name}"):
        from flows.commands.results import show_report

        show_report(name, Path.cwd())


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="Its name, the id of its run, or its file.")],
) -> None:
    """Compute all digests of a study anew: its files, its data, its base, its certificate."""
    with failures(f"holdfast verify {name}"):
        from flows.commands.verify import verify_studies

        if not verify_studies(name, Path.cwd()):
            raise typer.Exit(1)


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(metavar="RUN|STUDY", help="A study's name, or the id of a run.")],
    worktree: Annotated[bool, typer.Option(help="Run the recorded commit, in a fresh environment.")] = False,
) -> None:
    """Run a study, or one training of it, again from what was recorded, and print how it differs."""
    with failures(f"holdfast reproduce {name}"):
        from flows.commands.reproduce import reproduce_recorded

        code = reproduce_recorded(name, worktree, Path.cwd())
        if code:
            raise typer.Exit(code)


@app.command(hidden=True)
def rerun(place: Path) -> None:
    """What `holdfast reproduce` runs in a process of its own, which may be of another commit."""
    with failures("holdfast reproduce"):
        from flows.commands.server import prefect_server
        from tasks.worker import preload

        preload()
        with prefect_server() as ready:
            from flows.commands.reproduce import rerun_job
            from flows.study import ArmsFailed

            ready()
            try:
                rerun_job(place.resolve())
            except ArmsFailed as error:
                print_failures(error)
                raise typer.Exit(1) from None


@app.command()
def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="STUDY|RUN...", help="Names, or ids of runs."),
    ],
    predictors: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, metavar="PROMPTS", help="First measure, on so many prompts, what may predict forgetting."),
    ] = None,
) -> None:
    """One report on several studies, or on single trainings of them."""
    command = shlex.join(["holdfast", "compare", *names, *(["--predictors", str(predictors)] if predictors else [])])
    with failures(command):
        from flows.commands.server import prefect_server

        _probe_store()
        with prefect_server() as ready:
            from flows.commands.results import print_outcome
            from flows.compare import compare as compare_flow
            from holdfast.config.measurement import Predictors

            _open_store()
            ready()
            settings = None if predictors is None else Predictors(prompts=predictors)
            with told_failures(command):
                outcome = compare_flow(tuple(names), command, predictors=settings)
            print_outcome(outcome.report, outcome.summary)


@app.command()
def influence(
    run: Annotated[str, typer.Argument(help="The MLflow id of a train run, or the beginning of one.")],
    step: Annotated[Optional[list[int]], typer.Option(help="A kept checkpoint; by default all.")] = None,  # noqa: UP045
    overrides: Set = None,
) -> None:
    """Trace what a past training forgot to its samples; --set samples=200 and the like change the defaults."""
    with failures(f"holdfast influence {run}"):
        from flows.commands.experiment import influence_settings
        from flows.commands.server import prefect_server

        settings = influence_settings(overrides or ())
        _probe_store()
        with prefect_server() as ready:
            from flows.commands.results import print_influence
            from flows.influence import influence as trace

            _open_store()
            ready()
            done = trace(run, settings, tuple(step or ()))
            print_influence(done.result.metrics)
            typer.echo(f"\nRun {done.run_id}: {done.path}")


@app.command()
def doctor() -> None:
    """Check this machine and this directory; every problem comes with its remedy."""
    with failures("holdfast doctor"):
        from flows.commands.doctor import examine

        findings = examine(Path.cwd())
        for finding in findings:
            typer.echo(str(finding))
        if any(finding.remedy for finding in findings):
            raise typer.Exit(1)


Files = Annotated[Optional[list[Path]], typer.Argument(metavar="FILE...", help="Experiments.")]  # noqa: UP045


@app.command()
def export(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="The name in the experiment's file.")],
    file: Annotated[Path, typer.Argument(help="The archive: NAME.tar, NAME.tar.gz or NAME.tar.zst.")],
) -> None:
    """Write a study's runs, checkpoints and data into one file, for another machine or store."""
    with failures(f"holdfast export {name} {file}"):
        from flows.commands.housekeeping import export_lines

        for line in export_lines(name, file, Path.cwd()):
            typer.echo(line)


@app.command(name="import")
def import_(file: Annotated[Path, typer.Argument(help="An archive of `holdfast export`.")]) -> None:
    """Bring a study from an archive; all of it is checked before anything is changed."""
    with failures(f"holdfast import {file}"):
        from flows.commands.housekeeping import import_lines

        for line in import_lines(file, Path.cwd()):
            typer.echo(line)


@app.command()
def gc(
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without, it is only listed.")] = False,
    clone: Annotated[Optional[list[Path]], typer.Option(help="Another clone that shares DVC's cache.")] = None,  # noqa: UP045
) -> None:
    """List what takes room and nothing refers to: old checkpoints, samples, data versions and interrupted work."""
    with failures("holdfast gc" + (" --delete" if delete else "")):
        from flows.commands.housekeeping import gc_lines

        for line in gc_lines(Path.cwd(), clone or (), delete):
            typer.echo(line)


@app.command()
def serve(
    files: Files = None,
    overrides: Set = None,
    cron: Annotated[Optional[str], typer.Option(help="When to run, for example '0 3 * * 1'.")] = None,  # noqa: UP045
    limit: Annotated[Optional[int], typer.Option(min=1, help="Runs at a time.")] = None,  # noqa: UP045
) -> None:
    """Offer experiments, and every other flow, to a Prefect server, and run them here on request or by schedule."""
    # Whoever serves wants to see what runs.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    with failures(shlex.join(["holdfast", "serve", *map(str, files or ())])):
        from flows.commands.serve import read_experiments, serve_experiments

        commands = {file: _command(file, overrides) for file in files or ()}
        serve_experiments(read_experiments(commands, overrides or (), cron), limit)


@app.command()
def deploy(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiments.")],
    pool: Annotated[str, typer.Option(help="The work pool whose workers run them.")],
    overrides: Set = None,
) -> None:
    """Give experiments to a Prefect work pool; each has its name there, and its schedule."""
    with failures(shlex.join(["holdfast", "deploy", *map(str, files), "--pool", pool])):
        from flows.commands.serve import deploy_experiments, read_experiments

        commands = {file: _command(file, overrides) for file in files}
        for name in deploy_experiments(read_experiments(commands, overrides or ()), pool):
            typer.echo(name)


@app.command()
def watch(
    silence: Annotated[
        float, typer.Option(min=60, help="Seconds without a heartbeat after which a run is looked at.")
    ] = 300.0,
) -> None:
    """Look after runs that failed, died or do not begin: those whose processes are gone are begun again."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
    with failures("holdfast watch"):
        from flows.commands.serve import serve_watch

        serve_watch(silence)


def _probe_store() -> None:
    """A store of the user's that cannot be used is told before a server is started."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        _open_store()


def _open_store() -> None:
    from tasks.tracking import open_store

    open_store(Path.cwd())


def _command(file: Path, overrides: list[str] | None) -> str:
    sets = [part for override in overrides or () for part in ("--set", override)]
    return shlex.join(["holdfast", "study", str(file), *sets])
