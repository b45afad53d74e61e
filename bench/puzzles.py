"""How fast are puzzles cut from JPEG photographs, compared with merely decoding them, and does memory grow?

Run: python -m bench.puzzles [--images 2000]. Cutting and decoding take turns, both on all cores; prints the median
ratio of their rates, and the peak memory of a process that cuts a quarter of the images and of one that cuts all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from holdfast.benchmarks.dataset import puzzles
from holdfast.config.images import Folder
from holdfast.config.targets import Jigsaw
from holdfast.data.folder import FolderSource, photographs
from holdfast.data.shards import write_questions

WIDTH, HEIGHT = 640, 480
ROUNDS = 7


def make_jpegs(folder: Path, count: int) -> None:
    """Real photographs, each shifted and mirrored differently, as a camera would store them."""
    originals = []
    for path in photographs(Folder(source="folder")):
        with Image.open(path) as image:
            originals.append(np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT))))
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = np.roll(originals[index % len(originals)], rng.integers(0, (HEIGHT, WIDTH)), axis=(0, 1))
        Image.fromarray(pixels[:, :: rng.choice((-1, 1))]).save(folder / f"{index:06d}.jpg", quality=90)


def cut(folder: Path, count: int) -> float:
    """Seconds to make `count` puzzles, one an image, and write them to a shard."""
    started = time.perf_counter()
    source = FolderSource(Folder(source="folder", path=folder), seed=0)
    images = source.split({"train": count})["train"]
    write_questions(folder / "shard.parquet", islice(puzzles(source, images, Jigsaw(), 0), count))
    return time.perf_counter() - started


def decode(folder: Path, pool: ProcessPoolExecutor, cores: int) -> float:
    """Seconds to decode all images in full, by one process a core."""
    paths = sorted(folder.glob("*.jpg"))
    started = time.perf_counter()
    list(pool.map(_decode, [paths[core::cores] for core in range(cores)]))
    return time.perf_counter() - started


def _decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def peak_memory_mb(folder: Path, count: int) -> float:
    """Peak memory of a fresh process that cuts `count` puzzles."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_cut_and_measure, folder, count).result()


def _cut_and_measure(folder: Path, count: int) -> float:
    cut(folder, count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    count = parser.parse_args().images
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(cores) as pool:
        folder = Path(name)
        make_jpegs(folder, count)
        decode(folder, pool, cores)
        rounds = [(decode(folder, pool, cores), cut(folder, count)) for _ in range(ROUNDS)]
        decoding, cutting = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratios = sorted(decoded / made for decoded, made in rounds)
        print(f"decoding   {count / decoding:7.0f} images/s on {cores} cores")
        print(f"cutting    {count / cutting:7.0f} puzzles/s")
        print(f"ratio      {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f} in {ROUNDS} rounds)")
        few, many = peak_memory_mb(folder, count // 4), peak_memory_mb(folder, count)
        print(f"peak memory {few:.0f} MB for {count // 4} images, {many:.0f} MB for {count}")


if __name__ == "__main__":
    main()
