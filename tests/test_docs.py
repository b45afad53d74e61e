"""The documentation is true: links and paths are there, recipes work, the drawing is that of the code."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml

from flows.commands.experiment import load_experiment, studies_of
from holdfast.config.refs import ModelRef

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = "holdfast|tasks|flows|tests|bench|docs|experiments"


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_in_the_text_exist(page: Path) -> None:
    text = re.sub(r"^```python.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for path in re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    unlinked = {page.name for page in PAGES if page.parent == ROOT / "docs" and f"(docs/{page.name}" not in readme}
    assert not unlinked


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


def settings() -> list[str]:
    """Pieces of experiment files that pages show; a key that stands twice begins another one."""
    pages = [page.read_text() for page in PAGES if page.name != "extending.md"]
    shown = [block for page in pages for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    return [piece for block in shown for piece in re.split(r"\n(?=target:|images:)", block)]


@pytest.mark.parametrize("piece", settings())
def test_settings_that_are_shown_are_understood(piece: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("banners", "train", "test"):
        Path(f"{name}.jsonl").touch()
    fields = yaml.safe_load(piece)
    if "rewards" in fields:
        fields = {"arms": {"a": [{"method": "grpo", "rewards": fields["rewards"]}]}}
    file = {"name": "shown", "arms": {"teacher": [{"method": "sft", "source": "teacher"}]}, **fields}
    Path("shown.yaml").write_text(yaml.safe_dump(file))
    assert studies_of(load_experiment(Path("shown.yaml")))


def test_the_drawing_is_that_of_the_imports() -> None:
    drawing = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["drawing"]
    assert drawing() == (ROOT / "docs" / "architecture.svg").read_text(), "run: python docs/architecture.py"


def test_the_engine_works_as_the_page_on_influence_says(tiny_model: ModelRef, processor: Any) -> None:
    from holdfast.benchmarks.catalog import prior_questions
    from holdfast.models.encode import completion_ids, encode, teacher_forced
    from holdfast.models.load import load_model

    model, pad_token = load_model(tiny_model), processor.tokenizer.pad_token_id
    questions = list(prior_questions("color", 3, seed=0))
    prompts = encode(processor, questions)
    completions = [completion_ids(processor.tokenizer, question.reference) for question in questions]
    given = {"model": model, "pad_token": pad_token, "prompts": prompts, "completions": completions}
    given["batches_of_questions"] = [teacher_forced(prompts[:2], completions[:2], pad_token, model.device)]
    [snippet] = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/influence.md").read_text(), re.MULTILINE | re.DOTALL)
    exec(snippet, given)
    assert given["measured"].norm2.shape == (3,)
    assert given["measured"].dot.shape == (3, 1)
    given["Engine"](model, [given["prior"]]).verify(given["batch"])


class Block(NamedTuple):
    """A file to write or edits to make, as docs/extending.md has them."""

    recipe: str
    kind: str
    path: str
    body: str


def blocks() -> list[Block]:
    """All of the page's, in order; the first line of each names its file."""
    found = []
    for section in (ROOT / "docs" / "extending.md").read_text().split("\n## ")[1:]:
        recipe = section.partition("\n")[0]
        for kind, path, body in re.findall(
            r"^```(python|diff)\n# (\S+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL
        ):
            found.append(Block(recipe, kind, path, body))
    return found


def edited(source: str, edits: str) -> str:
    """Every hunk's old lines stand once in the source; its new lines take their place."""
    for hunk in edits.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        assert source.count(old) == 1, old
        source = source.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    return source


TESTS = {block.recipe: block.path for block in blocks() if block.path.startswith("tests/")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """All recipes followed in one copy of the code; what failed by test file."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "holdfast", copy / "holdfast", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("support", "conftest.py", "benchmarks/prior/test_prior.py"):
        source, target = ROOT / "tests" / name, copy / "tests" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for block in blocks():
        file = copy / block.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.body if block.kind == "python" else edited(file.read_text(), block.body))
    paths = os.pathsep.join([str(copy), str(copy / "tests" / "support")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["--continue-on-collection-errors"]
    command += ["--rootdir", str(copy), "--junitxml", "found.xml", *TESTS.values(), "tests/benchmarks/prior"]
    ran = subprocess.run(command, cwd=copy, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert (copy / "found.xml").is_file(), ran.stdout + ran.stderr
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(copy / "found.xml").iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        found.setdefault(file, []).extend(failure.text or "" for failure in case if failure.tag in ("failure", "error"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TESTS)
def test_a_recipe_works(recipe: str, outcomes: dict[str, list[str]]) -> None:
    assert outcomes.get(TESTS[recipe], outcomes.get(".py")) == []


def test_a_new_prior_benchmark_passes_what_all_of_them_pass(outcomes: dict[str, list[str]]) -> None:
    assert outcomes["tests/benchmarks/prior/test_prior.py"] == []


def test_every_kind_of_extension_has_a_recipe_with_a_test() -> None:
    assert len(TESTS) == len({block.recipe for block in blocks()}) == 8


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), (file, test)
