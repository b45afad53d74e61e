"""Commands about graders and what they grade: `grade`, `samples` and `rescore`.

Only light imports stand at the top, as in `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from flows.commands.endings import failures

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})
def grade(
    grader: Annotated[str, typer.Argument(metavar="GRADER", help="For example number; docs/graders.md has all.")],
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Completions; - reads one a line from stdin.")],
    answer: Annotated[list[str], typer.Option(help="The right answer; give it again for every other accepted one.")],
) -> None:
    """Try a grader: what it reads in a text, whether that is right, and what a reward would pay."""
    with failures(f"holdfast grade {grader}"):
        from flows.commands.grade import grade_lines

        for line in grade_lines(grader, answer, texts):
            typer.echo(line)


@app.command()
def samples(
    name: Annotated[str, typer.Argument(metavar="STUDY|RUN", help="A study's name, or the id of a train run.")],
    out: Annotated[Path, typer.Argument(help="A directory for the files.")],
) -> None:
    """Write answers to public benchmarks as lmms-eval or lm-evaluation-harness writes its samples."""
    with failures(f"holdfast samples {name} {out}"):
        from flows.commands.samples import export as write
        from tasks.tracking import open_store

        for path in write(name, out, open_store(Path.cwd())):
            typer.echo(path)


@app.command()
def rescore(
    file: Annotated[Path, typer.Argument(help="A samples file of lmms-eval or lm-evaluation-harness.")],
    benchmark: Annotated[Optional[str], typer.Option(help="What it answers, if its name does not say.")] = None,  # noqa: UP045
    questions: Annotated[Optional[Path], typer.Option(help="A shard with the questions, for lmms-eval's.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Write records to this Parquet file.")] = None,  # noqa: UP045
) -> None:
    """Grade what another harness's model answered, beside that harness's own scores."""
    with failures(f"holdfast rescore {file}"):
        from flows.commands.samples import imported

        for line in imported(file, benchmark, questions, out):
            typer.echo(line)
