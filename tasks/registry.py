"""What MLflow's model registry points at: a checkpoint that somebody registered is never removed."""

from __future__ import annotations

from typing import Any

from tasks.paging import pages
from tasks.tracking import Store


def aliases(store: Store, name: str) -> dict[str, tuple[str, int]]:
    """By alias of a registered model, the run and the step of the checkpoint that it points at."""
    for model in pages(lambda **page: store.client.search_registered_models(f"name = '{name}'", **page)):
        versions = {str(version.version): version for version in _versions(store, f"name = '{name}'")}
        named = {alias: versions.get(str(number)) for alias, number in model.aliases.items()}
        return {
            alias: (version.run_id, int(version.tags["holdfast.step"]))
            for alias, version in named.items()
            if version is not None and "holdfast.step" in version.tags
        }
    return {}


def registered_checkpoints(store: Store) -> dict[str, set[int]]:
    """By run, the steps of the checkpoints of which the registry has a version, with or without an alias."""
    found: dict[str, set[int]] = {}
    for version in _versions(store, ""):
        steps = found.setdefault(version.run_id, set())
        if "holdfast.step" in version.tags:
            steps.add(int(version.tags["holdfast.step"]))
    return found


def _versions(store: Store, query: str) -> list[Any]:
    return list(pages(lambda **page: store.client.search_model_versions(query, **page)))
