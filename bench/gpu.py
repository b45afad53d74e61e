"""What a card does with Qwen2.5-VL-3B: SFT, a GRPO step beside TRL's plain one, influence beside a plain pass, memory.

Run: python -m bench.gpu [--out FILE] [--peak TFLOPS]. Random weights of the exact shape are made on the card and learn
with the arguments of experiments/qwen3b-lora.yaml and qwen3b-full.yaml. The last part rolls out by vLLM where that is
there (`make vllm`, then .venv-vllm/bin/python). It takes ten minutes at most: a part that would begin after seven is
left out, and said to be. Prints a Markdown table; `--out` gets the same as JSON after every part. Without a card, a
tiny stand-in goes the same way on the CPU and every line says so: its numbers say nothing of a card.

Utilisation is the operations of the model by holdfast/stages/needs.py, those that checkpointing repeats not among them,
over the time and the dense bfloat16 peak of the card's data sheet (`--peak` for a card that is not known); on a CPU,
over what one large matrix product reaches. Memory of a card is the most that torch's tensors held.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bench import rft
from bench.gpu_parts import Bench, Row, cleared, grpo, grpo_by_vllm, sft, traced
from bench.grpo_sides import now
from bench.qwen import QWEN_3B, STAND_IN
from holdfast.determinism import settle_torch

PEAKS = {
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
}
"""Dense bfloat16 TFLOP/s with sums in float32, by what a card's name contains; the first that fits."""
LAST_START = 7 * 60
"""Seconds after which no part begins."""
PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "SFT, LoRA": lambda bench: sft(bench, "qwen3b-lora.yaml"),
    "GRPO step": lambda bench: grpo(bench, checkpointing=True),
    "GRPO step without checkpointing": lambda bench: grpo(bench, checkpointing=False),
    "influence": traced,
    "SFT, full": lambda bench: sft(bench, "qwen3b-full.yaml"),
    "GRPO step beside vLLM": grpo_by_vllm,
}
"""The one that takes most memory comes after the others, and then vLLM, which keeps what it has taken."""
HEADS = ("what", "s", "tokens/s", "TFLOP/s", "utilisation", "to plain", "memory, GB", "")


def measured(bench: Bench) -> Iterator[list[Row]]:
    """Each part's lines."""
    started = time.monotonic()
    for what, part in PARTS.items():
        if time.monotonic() - started > LAST_START:
            yield [Row(what, note="left out: seven minutes were over")]
            continue
        cleared()
        try:
            yield part(bench)
        except torch.OutOfMemoryError as error:
            short = str(error).partition(".")[0]
            yield [Row(what, note=f"does not fit: {short}")]


def device_peak(where: torch.device, given: float | None) -> float | None:
    """Operations a second: as given in TFLOP/s, of the data sheet, or on a CPU what a matrix product reaches."""
    if given is not None:
        return given * 1e12
    if where.type == "cuda":
        name = torch.cuda.get_device_name(where)
        return next((peak * 1e12 for part, peak in PEAKS.items() if part in name), None)
    size = 1024
    factor = torch.randn(size, size)
    best = float("inf")
    for _ in range(5):
        started = now()
        factor @ factor
        best = min(best, now() - started)
    return 2 * size**3 / best


def facts_of(bench: Bench) -> dict[str, Any]:
    """What the numbers belong to."""
    card = {} if bench.stand_in else {"memory_gb": torch.cuda.get_device_properties(bench.where).total_memory / 1e9}
    return {
        "card": None if bench.stand_in else torch.cuda.get_device_name(bench.where),
        **card,
        "stand_in": bench.stand_in,
        "shape": bench.shape.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "peak_tflops": bench.peak and bench.peak / 1e12,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    }


def line(row: Row) -> str:
    """A row of the Markdown table."""
    ratio = "" if row.ratio is None else "{:.2f} ({:.2f}–{:.2f})".format(*row.ratio)
    numbers = [
        _shown(row.seconds, ".3f"),
        _shown(row.tokens, ",.0f"),
        _shown(row.tflops, ".4g"),
        _shown(row.utilisation, ".1%"),
        ratio,
        _shown(row.memory, ".1f"),
    ]
    return f"| {' | '.join([row.what, *numbers, row.note])} |"


def _shown(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a JSON file with the same numbers")
    parser.add_argument("--peak", type=float, help="dense bfloat16 TFLOP/s of the card")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rft.take_one_card()
    settle_torch(arguments.threads)
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = QWEN_3B if where.type == "cuda" else STAND_IN
    report(Bench(shape, where, device_peak(where, arguments.peak)), arguments.out)


def report(bench: Bench, out: Path | None) -> None:
    """Print the table, line by line, and keep what is there so far in a file."""
    facts = facts_of(bench)
    card = facts["card"] or "No card: a tiny stand-in on the CPU, whose numbers say nothing of one"
    peak = "unknown; give --peak" if bench.peak is None else f"{bench.peak / 1e12:.4g} TFLOP/s"
    print(f"{card}; torch {facts['versions']['torch']}; {facts['date']}; peak {peak}\n")
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    rows: list[dict[str, Any]] = []
    for part in measured(bench):
        for row in part:
            marked = row._replace(what=f"{row.what} (tiny stand-in on a CPU)") if bench.stand_in else row
            print(line(marked), flush=True)
            rows.append({**marked._asdict(), "stand_in": bench.stand_in})
        if out is not None:
            out.write_text(json.dumps({**facts, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
