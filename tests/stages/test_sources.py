import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.stages.sources import ALWAYS, ENTRIES, ROOT, _named, modules, source_digest


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the library's sources, to change."""
    return shutil.copytree(ROOT, tmp_path / "holdfast", ignore=shutil.ignore_patterns("__pycache__"))


def change(sources: Path, module: str) -> None:
    file = sources.joinpath(*module.split(".")[1:]).with_suffix(".py")
    file.write_text(file.read_text() + "\n# another line\n")
    source_digest.cache_clear()


CASES = [
    ("data", "holdfast.data.world", "holdfast.training.sft"),
    ("base", "holdfast.models.tiny.curriculum", "holdfast.training.sft"),
    ("check", "holdfast.training.arguments", "holdfast.report.study"),
    ("trial", "holdfast.training.arguments", "holdfast.report.study"),
    ("trace_trial", "holdfast.influence.engine.capture", "holdfast.report.study"),
    ("ask_trial", "holdfast.evaluation.drift", "holdfast.report.study"),
    ("evaluate", "holdfast.benchmarks.grading.numbers", "holdfast.training.rewards"),
    ("sample", "holdfast.evaluation.generate", "holdfast.training.grpo"),
    ("train", "holdfast.training.length_rewards", "holdfast.report.study"),
    ("select", "holdfast.influence.engine.capture", "holdfast.training.grpo"),
    ("influence", "holdfast.training.rewards", "holdfast.report.study"),
    ("ledger", "holdfast.training.grpo", "holdfast.report.study"),
    ("predictors", "holdfast.evaluation.drift", "holdfast.training.grpo"),
    ("interpolate", "holdfast.models.load", "holdfast.training.sft"),
    ("compare", "holdfast.report.study", "holdfast.training.sft"),
]


def test_every_kind_of_stage_is_looked_at():
    assert {verb for verb, _, _ in CASES} == set(ENTRIES)


@pytest.mark.parametrize(("verb", "imported", "other"), CASES)
def test_a_module_that_a_stage_imports_changes_its_digest_and_another_does_not(
    sources: Path, verb: str, imported: str, other: str
) -> None:
    before = source_digest(verb, sources)
    change(sources, other)
    assert source_digest(verb, sources) == before
    change(sources, imported)
    assert source_digest(verb, sources) != before


def test_a_style_sheet_changes_the_report_alone(sources: Path):
    before = {verb: source_digest(verb, sources) for verb in ENTRIES}
    sheet = next((sources / "report").glob("*.css"))
    sheet.write_text(sheet.read_text() + "p {}")
    source_digest.cache_clear()
    assert {verb for verb in ENTRIES if source_digest(verb, sources) != before[verb]} == {"compare"}


def test_training_neither_reads_reports_nor_traces_influence():
    assert not [name for name in modules("train") if name.startswith(("holdfast.report", "holdfast.influence"))]


def test_the_process_imports_what_the_kinds_name():
    tree = ast.parse((ROOT / "stages" / "process.py").read_text())
    inside = {
        node.module
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom)
    }
    # Of several processes, which only trainings have.
    assert all("holdfast.group" in modules(verb) for verb in ("train", "trial"))
    # Beside a training, of which it changes nothing (test_ledger.py).
    assert "holdfast.stages.step_recording" in modules("ledger")
    assert inside - {"holdfast.group", "holdfast.stages.step_recording", "holdfast.stages.out_of_memory"} == {
        module for entries in ENTRIES.values() for module in entries
    }
    assert ALWAYS in modules("data")


def test_imports_found_by_pattern_are_those_that_the_parser_finds():
    for file in ROOT.rglob("*.py"):
        source = file.read_text()
        tree = ast.parse(source)
        for head, nodes in ((True, tree.body), (False, list(ast.walk(tree)))):
            assert sorted(_named(source, head)) == sorted(set(parsed(nodes))), file


def parsed(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            yield from [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
