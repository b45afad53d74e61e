"""Logged models, one of each kept checkpoint, and the registry's versions and aliases of them."""

from __future__ import annotations

from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from holdfast.config.results import Checkpoint
from tasks.paging import pages
from tasks.redaction import redacted


class RegistryFailed(Exception):
    """The model registry refuses; what was trained and measured is not lost by it."""


class Models:
    """Those of a store."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def keep(self, run_id: str, checkpoint: Checkpoint) -> str:
        """Id of the logged model of a checkpoint, found or made; it is READY once all is said of it."""
        run = self.client.get_run(run_id)
        found = (model for model in self.of(run) if model.tags.get("holdfast.step") == str(checkpoint.step))
        model = next(found, None) or self._create(run, checkpoint)
        if model.status != LoggedModelStatus.READY:
            # A process that died may have said the one and not the other.
            said = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
            if model.model_id not in said:
                self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, checkpoint.step)])
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        return model.model_id

    def _create(self, run: Run, checkpoint: Checkpoint) -> LoggedModel:
        run_id = run.info.run_id
        tags = {
            "holdfast.step": str(checkpoint.step),
            "holdfast.digest": checkpoint.digest,
            "holdfast.artifact": f"runs:/{run_id}/{checkpoint.path}",
            "holdfast.arm": run.data.tags.get("holdfast.arm", ""),
            # The files are artifacts of the run, so the model is external to MLflow's own model folder.
            "mlflow.model.isExternal": "true",
        }
        name = f"{run.info.run_name.replace('/', '-')}-step-{checkpoint.step}"
        params = {"digest": checkpoint.digest, "step": str(checkpoint.step)}
        return self.client.create_logged_model(run.info.experiment_id, name, run_id, tags, params)

    def ids(self, run: Run) -> dict[int, str]:
        """Ids of the logged models of a run's checkpoints, by step."""
        return {int(model.tags["holdfast.step"]): model.model_id for model in self.of(run)}

    def of(self, run: Run) -> list[Any]:
        """The logged models of a run."""
        query, experiments = f"source_run_id = '{run.info.run_id}'", [run.info.experiment_id]
        return list(pages(lambda **page: self.client.search_logged_models(experiments, query, **page), most=100))

    def delete(self, run: Run) -> None:
        """Delete the logged models of a run whose checkpoints are not there any more."""
        for model in self.of(run):
            self.client.delete_logged_model(model.model_id)

    def register(self, name: str, alias: str, run_id: str, step: int) -> None:
        """Point an alias of a registered model at a run's checkpoint.

        Raises:
            RegistryFailed: the registry refuses.
        """
        try:
            self._register(name, alias, run_id, step)
        except (MlflowException, OSError) as error:
            raise RegistryFailed(redacted(str(error).strip().splitlines()[0])) from error

    def _register(self, name: str, alias: str, run_id: str, step: int) -> None:
        run = self.client.get_run(run_id)
        model = next(m for m in self.of(run) if m.tags.get("holdfast.step") == str(step))
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        query = f"name = '{name}' and run_id = '{run_id}'"
        versions = pages(lambda **page: self.client.search_model_versions(query, **page))
        version = next((v for v in versions if v.tags.get("holdfast.step") == str(step)), None)
        if version is None:
            tags = {name: model.tags[name] for name in ("holdfast.step", "holdfast.digest", "holdfast.arm")}
            tags["holdfast.model"] = model.model_id
            # Without the model's id: a server takes that only with files below the model, and these are the run's.
            source = model.tags["holdfast.artifact"]
            version = self.client.create_model_version(name, source, run_id, tags, await_creation_for=0)
        self.client.set_registered_model_alias(name, alias, version.version)
