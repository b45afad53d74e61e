"""How many short completions a second does each grader grade, on one core?

Run: python -m bench.graders [--seconds 1]. Completions are right, wrong and without an answer in equal parts, some
fifty characters long. Graders take turns; the figure is the median of five rounds. Time is the process's own CPU time,
so that other work on the machine changes it little. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

from holdfast.benchmarks.catalog import GRADERS, grade
from holdfast.benchmarks.targets import jigsaw
from holdfast.config.targets import Jigsaw

ANSWERS = {
    "jigsaw": ("2 1 4 3", "1 2 3 4"),
    "color": ("red", "blue"),
    "shape": ("circle", "square"),
    "count": ("3", "4"),
    "presence": ("yes", "no"),
    "comparison": ("no", "yes"),
    "pieces": ("sky", "ground"),
    "grounding": ("2 3 9 12", "1 1 4 4"),
    "digits": ("7", "1"),
    "spatial": ("left", "2"),
    "counting": ("3", "four"),
    "exact": ("a red kite", "a kite"),
    "number": ("1200.5", "1,200"),
    "choice": ("B", "(C) red"),
    "box": ("10 20 30 40.5", "0 0 20 20"),
    "contains": ("kite", "a red bird"),
    "detection": ("2 3 9 12; 1 1 4 4", '[{"bbox_2d": [1, 1, 4, 4], "label": "person 2"}]'),
    "vqa": ("yes", "no"),
}
ROUNDS, BATCH = 5, 600


def completions(right: str, wrong: str) -> list[str]:
    endings = (f"<answer> {right} </answer>", f"<answer> {wrong} </answer>", "and so on")
    return [f"<think> {i} cell 3 red circle </think> {endings[i % 3]}" for i in range(BATCH)]


def rate(grading: Callable[[str], object], given: list[str], seconds: float) -> float:
    """Completions a second."""
    done, began = 0, time.process_time()
    while time.process_time() - began < seconds:
        for text in given:
            grading(text)
        done += BATCH
    return done / (time.process_time() - began)


def gradings() -> dict[str, tuple[Callable[[str], object], list[str]]]:
    """What is done with which completions, by name."""
    every: dict[str, tuple[Callable[[str], object], list[str]]] = {
        name: (partial(grade, name, answer=ANSWERS[name][0]), completions(*ANSWERS[name])) for name in GRADERS
    }
    right, given = ANSWERS["jigsaw"][0], completions(*ANSWERS["jigsaw"])
    every["adjacency"] = partial(jigsaw.adjacency, answer=right, question=jigsaw.prompt(Jigsaw())), given
    return every


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0, help="for each grader")
    seconds = parser.parse_args().seconds
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, (grading, given) in gradings().items():
            rates.setdefault(name, []).append(rate(grading, given, seconds / ROUNDS))
    print("| grader | completions a second |\n|---|---|")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):,.0f} |")


if __name__ == "__main__":
    main()
