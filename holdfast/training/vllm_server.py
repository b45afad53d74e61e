"""A vLLM server in the place of `vllm.LLM`: rollouts ask it as they ask an engine of their own.

TRL sends weights to a server by NCCL, which needs a card on both sides. Here they go through files, which the server
has to see under the same path, on any device (`vllm_worker`). A prompt is laid out from what the server's own processor
makes of its images, and is then held to the trainer's, as that of an engine here is. A server has the weights of one
training at a time, which therefore keeps it until its process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import requests
from requests.adapters import HTTPAdapter, Retry
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from trl.generation.vllm_client import VLLMClient, parse_logprobs

from holdfast.errors import UserError, reason
from holdfast.models.vllm_engine import Engine
from holdfast.training.vllm_worker import CLASS, LOAD, READY

FIELD = "trainer.vllm_mode"
AT_ONCE = 64
"""Requests on their way."""
LAST_OF_EACH = 2
"""vLLM's RequestOutputKind.FINAL_ONLY."""
FORGETS_WITHIN = 30.0
"""Seconds for what a killed training had asked to end, without which vLLM forgets no prompt."""
GENERATE = "inference/v1/generate"


class Server:
    """As much of `vllm.LLM` as rollouts use."""

    def __init__(self, url: str, timeout: float, engine: Engine) -> None:
        """Waits until no other training of this machine has the server.

        Raises:
            UserError: none answers there within `timeout` seconds, or it was started otherwise than rollouts need.
        """
        self.url, self.engine = url, engine
        self.session = requests.Session()
        # A connection that waited for a step may be closed by now; what a server answers is taken as it is.
        again = Retry(3, status=0, backoff_factor=0.5, allowed_methods=None)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=AT_ONCE, max_retries=again))
        self._await(timeout)
        name = Path(tempfile.gettempdir()) / f"holdfast-vllm-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self.place, self.held = name, name.with_suffix(".lock").open("w")
        fcntl.flock(self.held, fcntl.LOCK_EX)
        self._require_routes()
        with self._told():
            self.client = VLLMClient(base_url=url)
            [model] = self.session.get(f"{url}/v1/models").json()["data"]
        config = SimpleNamespace(max_model_len=int(model["max_model_len"]))
        self.llm_engine = SimpleNamespace(model_config=config, reset_encoder_cache=self.reset_encoder_cache)

    def generate(self, prompts: Sequence[Mapping[str, Any]], sampling_params: Sequence[Any], **_: Any) -> list[Any]:
        """One completion of each prompt, by its own parameters, as `vllm.LLM` gives them."""
        with self._told():
            features = self._features([_listed(prompt) for prompt in prompts])
        rows = [
            _laid_out(list(prompt["prompt_token_ids"]), of, self.engine.image_token)
            for prompt, of in zip(prompts, features, strict=True)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(self._complete, rows, map(_as_json, sampling_params)))
        return [
            SimpleNamespace(prompt_token_ids=ids, outputs=[_output(answer)])
            for (ids, _), answer in zip(rows, answers, strict=True)
        ]

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Let the server read these weights, under the names of a checkpoint."""
        # Of a training that was killed, too.
        shutil.rmtree(self.place, ignore_errors=True)
        try:
            self.place.mkdir()
            tensors = {name: value.detach().cpu().contiguous() for name, value in weights}
            save_file(tensors, self.place / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.place}: weights for the vLLM server cannot be written there ({reason(error)}); free some "
                "space, or set TMPDIR to a directory that both see"
            ) from error
        self._post("collective_rpc", {"method": LOAD, "args": [str(self.place)]})
        shutil.rmtree(self.place)

    def reset_prefix_cache(self) -> None:
        """Forget prompts that other weights have read. UserError where the server cannot, since others ask it, too."""
        until = time.monotonic() + FORGETS_WITHIN
        while not (self._post("reset_prefix_cache") or {}).get("success", True):
            if time.monotonic() > until:
                raise UserError(
                    f"{FIELD}: the server at {self.url} is at work for others; let it serve this training alone"
                )
            time.sleep(0.5)

    def reset_encoder_cache(self) -> None:
        """Forget images that another tower has seen."""
        self._post("reset_encoder_cache")

    def _await(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while True:
            try:
                answer = self.session.get(f"{self.url}/health", timeout=10)
                if answer.status_code == requests.codes.ok:
                    return
                why = str(answer.status_code)
            except requests.RequestException as error:
                why = reason(error)
            if time.monotonic() >= until:
                raise UserError(f"{FIELD}: no vLLM server answers at {self.url}; start it: {self._command()} ({why})")
            time.sleep(1)

    def _require_routes(self) -> None:
        """UserError where the server was started otherwise than rollouts need.

        Whether its log-probabilities are processed, the comparison with the trainer's tells: /server_info, which knows,
        fails where the server's environment has neither pip nor uv.
        """
        with self._told():
            route = self.session.post(f"{self.url}/{GENERATE}", json={})
            ready = self.session.post(f"{self.url}/collective_rpc", json={"method": READY})
        if route.status_code == requests.codes.not_found or ready.status_code != requests.codes.ok:
            raise UserError(f"{FIELD}: the server at {self.url} was started otherwise; start it so: {self._command()}")

    def _command(self) -> str:
        """That starts a server for this training."""
        engine = self.engine
        given = ["--enable-scale-out", "--worker-extension-cls", CLASS, "--logprobs-mode", "processed_logprobs"]
        given += ["--dtype", engine.dtype]
        sizes = ["--mm-processor-kwargs", json.dumps({"size": engine.sizes})] if engine.sizes else []
        revision = ["--revision", engine.revision] if engine.revision else []
        words = ["vllm", "serve", engine.model, *given, *revision, *sizes, "--host", "127.0.0.1"]
        return f"VLLM_SERVER_DEV_MODE=1 {shlex.join(words)}"

    def _features(self, images: Sequence[Sequence[Any]]) -> list[dict[str, Any] | None]:
        """What the server's processor makes of each prompt's images; those of a group are the same."""
        contents = [tuple((image.size, image.mode, image.tobytes()) for image in shown) for shown in images]
        different = {content: list(shown) for content, shown in zip(contents, images, strict=True) if content}
        if not different:
            return [None] * len(images)
        made = dict(zip(different, self.client.image_features(list(different.values())), strict=True))
        return [made[content] if content else None for content in contents]

    def _complete(self, row: tuple[list[int], dict[str, Any] | None], parameters: dict[str, Any]) -> Any:
        ids, features = row
        asked = {"request_id": f"holdfast-{uuid.uuid4().hex}", "model": self.client.model, "token_ids": ids}
        given = {"features": features} if features else {}
        [choice] = self._post(GENERATE, {**asked, **given, "sampling_params": parameters})["choices"]
        return choice

    def _post(self, path: str, content: Any = None) -> Any:
        with self._told():
            answer = self.session.post(f"{self.url}/{path}", json=content)
        if answer.status_code != requests.codes.ok:
            why = reason(RuntimeError(f"{answer.status_code} {answer.text}"))
            raise UserError(f"{FIELD}: the server at {self.url} refuses {path} ({why}); its log says more")
        return answer.json() if answer.content else None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """TRL's client raises what it likes."""
        try:
            yield
        except Exception as error:
            raise UserError(
                f"{FIELD}: the vLLM server at {self.url} does not answer as it should ({reason(error)}); look at its "
                "log, start it again, and give the same command"
            ) from error


def _listed(prompt: Mapping[str, Any]) -> list[Any]:
    shown = prompt.get("multi_modal_data", {}).get("image", [])
    return list(shown) if isinstance(shown, list) else [shown]


def _laid_out(
    ids: list[int], features: dict[str, Any] | None, image_token: int | None
) -> tuple[list[int], dict[str, Any] | None]:
    """A prompt with one token an image as the server reads it, and its features at their places in it."""
    if features is None:
        return ids, None
    lengths = iter(place["length"] for place in features["mm_placeholders"]["image"])
    read: list[int] = []
    places = []
    for token in ids:
        length = next(lengths) if token == image_token else 1
        if token == image_token:
            places.append({"offset": len(read), "length": length})
        read += [token] * length
    return read, {**features, "mm_placeholders": {**features["mm_placeholders"], "image": places}}


def _as_json(parameters: Any) -> dict[str, Any]:
    """`vllm.SamplingParams`, without what is as vLLM has it anyway."""
    plain = type(parameters)()
    names = [name for name in parameters.__struct_fields__ if not name.startswith("_")]
    said = {name: getattr(parameters, name) for name in names if getattr(parameters, name) != getattr(plain, name)}
    if parameters.structured_outputs is not None:
        guided = vars(parameters.structured_outputs).items()
        said["structured_outputs"] = {name: one for name, one in guided if one is not None and name[0] != "_"}
    # A request that names no limit has none, where SamplingParams has 16.
    return {**said, "max_tokens": parameters.max_tokens, "output_kind": LAST_OF_EACH}


def _output(choice: Mapping[str, Any]) -> Any:
    """As `vllm.LLM` has it: of each token, by id, its rank and log-probability."""
    found, tokens = parse_logprobs([choice["logprobs"]])
    # They are always asked for.
    assert found is not None
    assert tokens is not None
    [values], [ids] = found, tokens
    logprobs = [
        {token: SimpleNamespace(rank=rank, logprob=_number(value)) for rank, (token, value) in enumerate(pairs, 1)}
        for pairs in (zip(of, given, strict=True) for of, given in zip(ids, values, strict=True))
    ]
    return SimpleNamespace(token_ids=list(choice["token_ids"]), logprobs=logprobs)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
