"""Artifacts of runs: beside the store on this machine, or on a server and copied from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlparse

from tasks import server_probe
from tasks.artifact_cache import ArtifactCache, link
from tasks.paging import pages


class Artifacts:
    """Those of a store's runs. `client` is MLflow's, `uri` the store's, `directory` for the copies."""

    def __init__(self, client: Any, uri: str, directory: Path) -> None:
        self.client, self.uri = client, uri
        self.cache = ArtifactCache(directory, client)

    def of(self, run: Any, again: bool = False) -> Path:
        """Directory with a run's artifacts, downloaded when they are on a server (`again`: even if they were before).

        Read only. Of a stage that ran here, what MLflow's page alone shows stays on the server.
        """
        finished = run.info.status == "FINISHED"
        return local_artifacts(run) or self.cache.get(run.info.run_id, finished, again)

    def whole(self, run: Any, again: bool = False) -> Path:
        """The same with tables and pictures of MLflow's page."""
        place = self.of(run, again)
        return local_artifacts(run) or self.cache.completed(run.info.run_id, place)

    def place(self, run: Any) -> Path:
        """Where a run's artifacts lie, or their copy will once somebody asked for it."""
        return local_artifacts(run) or self.cache.directory / run.info.run_id

    def places(self) -> Iterator[tuple[str, Path]]:
        """Ids of all runs, deleted ones too, of which this machine has artifacts or copies, and where; reads no run."""
        for experiment in pages(self.client.search_experiments):
            if (local := _local(experiment.artifact_location)) is not None:
                yield from ((place.parent.name, place) for place in local.glob("*/artifacts"))
        yield from ((place.name, place) for place in self.cache.directory.glob("*"))

    @contextmanager
    def file(self, run: Any, name: str) -> Iterator[Path | None]:
        """One artifact; None where there is none. From a server it is fetched anew, for as long as the block lasts."""
        local = local_artifacts(run)
        if local is not None:
            yield local / name if (local / name).is_file() else None
            return
        folder = PurePosixPath(name).parent.as_posix()
        with TemporaryDirectory() as place:
            path = None
            with server_probe.explained(self.uri):
                artifacts = self.client.list_artifacts(run.info.run_id, None if folder == "." else folder)
                if any(artifact.path == name for artifact in artifacts):
                    path = Path(self.client.download_artifacts(run.info.run_id, name, place))
            yield path

    def read(self, run: Any, name: str) -> str | None:
        """The text of an artifact; None where there is none."""
        with self.file(run, name) as path:
            return None if path is None else path.read_text("utf-8")

    def upload(self, run_id: str, directory: Path, names: Sequence[str]) -> None:
        """Copy files below a directory to the run's artifacts."""
        for name in names:
            folder = Path(name).parent.as_posix()
            self.client.log_artifact(run_id, str(directory / name), None if folder == "." else folder)

    def upload_last(self, run_id: str, directory: Path, names: Sequence[str]) -> Path:
        """Upload the files that a run's stage made; returns where they can be read from now on.

        On this machine they are linked, not copied: kept weights are large, and their work directory is removed.
        """
        place = local_artifacts(self.client.get_run(run_id))
        if place is None:
            self.upload(run_id, directory, names)
            return self.cache.add_local(run_id, directory, names)
        for name in names:
            link(directory / name, place / name)
        return place

    def text(self, run_id: str, text: str, name: str) -> None:
        """Make a text an artifact."""
        self.client.log_text(run_id, text, name)

    def table(self, run_id: str, columns: dict[str, list[Any]], name: str) -> None:
        """Log a table that the UI shows, pictures included; a table that is there stays."""
        if not any(artifact.path == name for artifact in self.client.list_artifacts(run_id)):
            self.client.log_table(run_id, columns, name)


def local_artifacts(run: Any) -> Path | None:
    """Where a run's artifacts lie on this machine, if they do."""
    return _local(run.info.artifact_uri)


def _local(address: str) -> Path | None:
    uri = urlparse(address)
    return Path(unquote(uri.path)) if uri.scheme in ("", "file") else None
