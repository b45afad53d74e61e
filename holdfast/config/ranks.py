"""The processes that run a stage together. Holdfast starts them itself; copies that a launcher starts are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from holdfast.errors import UserError

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""What torchrun, `accelerate launch`, mpirun and srun tell every process; an allocation by sbatch alone sets none."""
LOOPBACK = "lo"


class Rank(NamedTuple):
    """One of the processes of a stage."""

    number: int = 0
    size: int = 1
    meeting: str = ""
    """A file, not there yet, in which they find each other: unlike a port, nobody else can take it or listen to it."""

    def place(self, out: Path) -> Path:
        """Where it keeps its log; the first has the stage's directory."""
        return out / f"rank-{self.number}" if self.number else out


ALONE = Rank()


def is_of_a_rank(name: str) -> bool:
    """Whether a file, by its path below a stage's directory, is one of a rank's own."""
    return name.startswith("rank-")


def require_one_rank() -> None:
    """Refuse to be one of several ranks that a launcher started, whose checkpoints would hold no weights.

    Raises:
        UserError: a launcher started more than one.
    """
    for name in SIZES:
        size = os.environ.get(name, "")
        if size.isdecimal() and int(size) > 1:
            raise UserError(
                f"{name}={size}: holdfast starts the processes of a stage itself and was started as one of {size}; "
                f"start it without torchrun, accelerate launch, mpirun or srun, or unset {name}, and set compute.gpus "
                "to use several GPUs"
            )


def announce(rank: Rank) -> None:
    """Tell libraries, by what a launcher would set, which rank this process is. The ranks are on one machine."""
    if rank.size == 1:
        return
    os.environ |= {
        "RANK": str(rank.number),
        "LOCAL_RANK": str(rank.number),
        "WORLD_SIZE": str(rank.size),
        "LOCAL_WORLD_SIZE": str(rank.size),
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "NCCL_SOCKET_IFNAME": LOOPBACK,
    }
