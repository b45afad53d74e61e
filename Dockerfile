# The image of the team stack: its Prefect and MLflow servers, its workers, and studies by hand.
ARG PYTHON=python:3.11.13-slim-bookworm
FROM $PYTHON
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /holdfast
COPY requirements.lock requirements-team.lock pyproject.toml README.md ./
RUN uv pip install --system --no-cache -r requirements.lock -r requirements-team.lock
COPY flows flows
COPY tasks tasks
COPY holdfast holdfast
COPY experiments experiments
COPY stack stack
COPY prefect.yaml ./
RUN uv pip install --system --no-cache --no-deps -e .
# Their owner is this one in a new volume, too.
RUN useradd --create-home --uid 1000 holdfast && install -d -o holdfast -g holdfast /workspace /tmp/holdfast-1000
USER holdfast
# No entrypoint: workers of Docker and Kubernetes give the command that begins a run, and none replaces an entrypoint.
CMD ["holdfast", "--help"]
