"""About how long a stage takes: from its latest run in this study, or from rules of thumb for the bundled model."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from flows.graph import replicates
from flows.jobs import sampled_source
from holdfast.config.measurement import Influence, Predictors
from holdfast.config.methods import GRPO, SFT, AnyStage, Distill, OwnRollouts, Rollouts
from holdfast.config.schedule import chosen, scheduled
from holdfast.config.study import Study
from tasks.stage import COMMON, Position
from tasks.tracking import open_store


class StageId(NamedTuple):
    """Which stage of a study: its verb and whose it is."""

    verb: str
    position: Position = COMMON


EARLIER = 500
"""Runs of a study that are looked at: it may have been run for years."""
START = 5.0
"""Seconds until a stage's process works."""
QUESTION, RECIPE_EXAMPLE, ANSWER, EXAMPLE, ROLLOUT, TRACED = 0.002, 0.0026, 0.006, 0.004, 0.008, 0.004
"""Seconds on one of two cores: to make a question, learn a base example, answer, learn an example, learn a rollout,
measure an example's influence."""
LEDGER: dict[str, tuple[float, float]] = {"sft": (1.2, 2.5), "grpo": (1.9, 3.3)}
"""By method, what the way back over a training's steps takes of that training, without and with its tokens
(bench/ledger.py)."""
LOOKED_AT = 12
"""Steps, and ways between them, at which a ledger takes a benchmark's gradient, in the default study."""


def accounting(study: Study, stage: AnyStage, training: float) -> float:
    """Seconds of the way back over the steps of a stage's training that takes so many."""
    asked = study.influence.ledger if study.influence else None
    alone, with_tokens = LEDGER[stage.method]
    return training * (alone if asked and not asked.tokens else with_tokens)


def tracing(study: Study, steps: int, tried: dict[str, Any]) -> float:
    """Seconds of the influence of a stage of so many steps, by its trial. Questions are read twice at a checkpoint: for
    the benchmark's gradient, and for what the steps from and to it do to each."""
    settings = study.influence or Influence()
    visits = 1 + len(chosen(settings.every, scheduled(study.evaluation.keep, steps)))
    asked = 2 * tried["seconds_questions"] * settings.questions / tried["questions"]
    return visits * (tried["seconds_samples"] + asked)


def stage_ids(study: Study) -> list[StageId]:
    """The stages of a study that its reader cares about."""
    common = [StageId("data"), StageId("base"), StageId("evaluate")]
    if not study.model.is_built:
        common.remove(StageId("base"))
    arms: list[StageId] = []
    for arm, replicate in replicates(study):
        if arm not in study.trained:
            verbs = ("interpolate", "evaluate", *(["predictors"] if study.predictors else []))
            arms += [StageId(verb, Position(arm, replicate, 0)) for verb in verbs]
        for number, stage in enumerate(study.trained.get(arm, ())):
            selects = isinstance(stage, SFT) and stage.select is not None
            samples = sampled_source(stage) or (stage.replay is not None and stage.replay.answers == "own")
            wanted = {"sample": samples, "select": selects, "train": True, "evaluate": True}
            position = Position(arm, replicate, number)
            arms += [StageId(verb, position) for verb, is_wanted in wanted.items() if is_wanted]
            arms += [StageId("influence", position)] if study.influence else []
            arms += [StageId("ledger", position)] if study.accounted(arm) else []
            arms += [StageId("predictors", position)] if study.predictors else []
    return [*common, *arms]


def rough_time(seconds: float | None) -> str:
    """A time no more precise than an estimate is."""
    if seconds is None:
        return "time unknown before a first run"
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {seconds / 3600:.1f} h"


class Estimates:
    """Times of a study's stages."""

    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root

    @cached_property
    def earlier(self) -> dict[StageId, Any]:
        """Runs by stage. Read only when something has to run: a sweep has as many studies as it has plans."""
        return _earlier(self.study, self.root)

    def seconds(self, stage_id: StageId) -> float | None:
        """None where nobody knows."""
        # Another replicate, or the same arm in another setting of the sweep, takes about as long.
        run = self.earlier.get(stage_id) or self.earlier.get(_any(stage_id))
        if run is not None:
            return run.data.metrics["seconds"] * self._longer(stage_id, run)
        return START + self._by_thumb(stage_id) if self.study.model.path == "bundled" else None

    def _longer(self, stage_id: StageId, run: Any) -> float:
        """How many times as many steps a training has now."""
        then = run.data.params.get("stage.trainer.max_steps")
        now = self._steps(stage_id) if stage_id.verb == "train" else None
        return now / float(then) if now and then else 1.0

    def _steps(self, stage_id: StageId) -> int | None:
        position = stage_id.position
        return self.study.trained[position.arm or ""][position.stage].trainer.get("max_steps")

    def _by_thumb(self, stage_id: StageId) -> float:
        study, targets = self.study, list(self.study.all_targets.values())
        verb, (arm, _, number) = stage_id
        asked = sum(target.test for target in targets) + sum(getattr(prior, "questions", 100) for prior in study.prior)
        if verb == "data":
            validated = sum(getattr(prior, "validation", 0) for prior in study.prior)
            return QUESTION * (sum(one.train + one.validation for one in targets) + validated + asked)
        benchmarks = len(targets) + len(study.prior)
        asked += study.evaluation.validation * benchmarks
        if verb == "base":
            recipe = study.model.recipe
            return RECIPE_EXAMPLE * (recipe.warmup_steps + recipe.steps) * recipe.batch_size
        if verb == "evaluate" and arm is None:
            return 3 * ANSWER * asked
        if arm not in study.trained:
            return 3 * ANSWER * asked if verb in ("evaluate", "predictors") else START
        stage = study.trained[arm][number]
        target = study.target_of(stage)
        if verb == "sample":
            source = sampled_source(stage)
            if isinstance(source, Rollouts | OwnRollouts):
                return ANSWER * (source.prompts or target.train) * source.per_prompt
            return ANSWER * target.train
        if verb == "select":
            return EXAMPLE * target.train
        traced = study.influence or Influence()
        batch = stage.trainer.get("per_device_train_batch_size", 8)
        steps = self._steps(stage_id) or max(1, 3 * target.train // batch)
        if verb == "influence":
            asked = traced.questions * benchmarks
            return TRACED * (1 + len(scheduled(traced.every, steps))) * (3 * asked + 3 * traced.samples)
        if verb == "evaluate":
            return ANSWER * asked * len(scheduled(study.evaluation.every, steps))
        if verb == "predictors":
            prompts = 2 * (study.predictors or Predictors()).prompts
            return 2 * ANSWER * prompts * (1 + len(scheduled(study.evaluation.every, steps)))
        if verb == "ledger":
            learned = steps * batch * (ROLLOUT if isinstance(stage, GRPO | Distill) else EXAMPLE)
            return accounting(study, stage, learned) + LOOKED_AT * TRACED * traced.questions * benchmarks
        validated = study.evaluation.validation * benchmarks * len(scheduled(study.evaluation.keep, steps))
        return steps * batch * (ROLLOUT if isinstance(stage, GRPO | Distill) else EXAMPLE) + ANSWER * validated


def _earlier(study: Study, root: Path) -> dict[StageId, Any]:
    """The latest finished run of every stage, among the latest of the experiment; the study's own before others."""
    store = open_store(root)
    finished = "attributes.status = 'FINISHED' and tags.`holdfast.stage` != ''"
    runs = store.search(finished, store.experiment(study.experiment), most=EARLIER)
    timed = [run for run in runs if "seconds" in run.data.metrics]
    own = [run for run in timed if run.data.tags.get("holdfast.study") == study.name]
    found: dict[StageId, Any] = {}
    for run in own:
        found.setdefault(_stage_id(run), run)
    for run in (*own, *timed):
        found.setdefault(_any(_stage_id(run)), run)
    return found


def _stage_id(run: Any) -> StageId:
    tags = run.data.tags
    arm = tags["holdfast.arm"] or None
    verb = "sample" if arm and tags["holdfast.kind"] == "data" else tags["holdfast.kind"]
    return StageId(verb, Position(arm, int(tags.get("holdfast.replicate") or 0), int(tags["holdfast.stage"])))


def _any(stage_id: StageId) -> StageId:
    """The same stage of whichever replicate."""
    return stage_id._replace(position=stage_id.position._replace(replicate=0))
