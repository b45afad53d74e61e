"""`python -m holdfast JOB.json OUT`: a stage's process, as `holdfast.stages.process` has it."""

import sys

from holdfast.stages.process import run_job

if __name__ == "__main__":
    run_job(sys.argv[1], sys.argv[2])
