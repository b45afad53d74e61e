FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir uv
WORKDIR /holdfast
COPY requirements.lock pyproject.toml README.md ./
RUN uv pip install --system --no-cache -r requirements.lock
COPY flows flows
COPY tasks tasks
COPY holdfast holdfast
COPY experiments experiments
RUN uv pip install --system --no-cache --no-deps -e .
ENTRYPOINT ["holdfast"]
