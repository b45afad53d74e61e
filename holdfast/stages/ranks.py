"""A study runs its own processes; several copies of it, as launchers start them, would each train a part."""

from __future__ import annotations

import os

from holdfast.errors import UserError

SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")
"""What torchrun, `accelerate launch`, mpirun and srun tell every process; an allocation by sbatch alone sets none."""


def require_one_rank() -> None:
    """Refuse to be one of several ranks, whose checkpoints would hold no weights.

    Raises:
        UserError: a launcher started more than one.
    """
    for name in SIZES:
        size = os.environ.get(name, "")
        if size.isdecimal() and int(size) > 1:
            raise UserError(
                f"{name}={size}: holdfast trains in one process on one GPU and was started as one of {size}; "
                f"start it without torchrun, accelerate launch, mpirun or srun, or unset {name}"
            )
