"""`python -m bench.rft`, as vllm_stage.py runs a stage: on a machine without a GPU."""

import os

from vllm_stage import SETTINGS, keep_weights

if __name__ == "__main__":
    os.environ.update(SETTINGS)
    keep_weights()
    from bench.rft import main

    main()
