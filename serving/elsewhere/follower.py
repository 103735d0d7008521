"""Keeps vLLM up and in step with the registry, and says which model it may answer for.

vLLM knows an adapter by its name and the hash of its weights, and reads it from a copy of its own:
so a folder that changes under its name is another adapter, and an answer is by the weights that it
names. What vLLM does not take, or not yet, is left to our own engine. Knows no request.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from pathlib import Path
from tempfile import mkdtemp

from serving.deploy.placement import plain_rank
from serving.elsewhere.vllm_process import VllmProcess
from serving.errors import ServingError
from serving.models.registry import Registry, ServedModel

logger = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
LEAST_RANK = 32
"""Room for adapters that come later; a wider one is left to our own engine."""
SPARE_ADAPTERS = 4
MAX_RESTARTS = 5
QUIET_SECONDS = 600.0


class Follower:
    """A vLLM and a thread that looks after it; a context manager."""

    def __init__(
        self, registry: Registry, vllm: VllmProcess, seconds: float = LOOK_SECONDS
    ) -> None:
        self._registry = registry
        self._vllm = vllm
        self._seconds = seconds
        self._copies = Path(mkdtemp(prefix="arena-vllm-"))
        self._loaded: dict[str, str] = {}
        self._refused: set[str] = set()
        self._is_up = False
        self._ends: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="serving-vllm", daemon=True)

    def __enter__(self) -> Follower:
        self._start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._vllm.close()
        shutil.rmtree(self._copies, ignore_errors=True)

    @property
    def url(self) -> str:
        """Where vLLM answers."""
        return self._vllm.config.url

    def name_of(self, model: ServedModel) -> str | None:
        """vLLM's name of these very weights, or None: then our own engine answers."""
        if not self._is_up:
            return None
        if model is self._registry.base:
            return model.name
        return self._loaded.get(key_of(model))

    def lost(self) -> None:
        """A request found nobody: until the next look says otherwise, vLLM is away."""
        self._is_up = False

    def look(self) -> None:
        """One round: is it up, and does it hold what the registry holds?"""
        if self._vllm.exit_status is not None:
            self._is_up = False
            self._start_again()
            return
        if not self._vllm.is_healthy():
            self._is_up = False
            return
        if not self._is_up:
            names = [self._registry.base.name, *sorted(self._loaded)]
            logger.info("vLLM at %s answers for %s", self.url, ", ".join(names))
        self._is_up = True
        wanted = {key_of(one): one for one in self._registry if self._is_candidate(one)}
        for key in [key for key in self._loaded if key not in wanted]:
            name = self._loaded.pop(key)  # first: no new request goes there
            if why := self._vllm.unload(name):
                logger.warning("vLLM did not unload %s: %s", name, why)
            shutil.rmtree(self._copies / key.rpartition("@")[2], ignore_errors=True)
        for key, model in wanted.items():
            if key not in self._loaded and key not in self._refused:
                self._load(key, model)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.look()
            except Exception:
                logger.exception("a look at vLLM failed; the next one follows")

    def _is_candidate(self, model: ServedModel) -> bool:
        return (
            model.kind == "lora" and model.head is None and model.parent == self._registry.base.name
        )

    def _load(self, key: str, model: ServedModel) -> None:
        try:
            plain_rank(model.folder, model.name)
            folder = self._copied(model)
        except (ServingError, OSError) as error:
            why = str(error)
        else:
            why = self._vllm.load(key, folder)
        if why:
            self._refused.add(key)
            logger.warning("vLLM does not take %s, our own engine serves it: %s", model.name, why)
        else:
            self._loaded[key] = key
            logger.info("vLLM answers for %s", model.name)

    def _copied(self, model: ServedModel) -> Path:
        """A copy of the adapter that nobody changes; vLLM may read it again at any time."""
        target = self._copies / model.weights_sha256
        if not target.is_dir():
            target.mkdir()
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(model.folder / name, target / name)
        return target

    def _start(self) -> None:
        """Start vLLM with all adapters of this moment."""
        folders: dict[str, Path] = {}
        rank = LEAST_RANK
        for model in self._registry:
            if not self._is_candidate(model):
                continue
            try:
                rank = max(rank, plain_rank(model.folder, model.name))
                folders[key_of(model)] = self._copied(model)
            except (ServingError, OSError) as error:
                self._refused.add(key_of(model))
                logger.warning("vLLM does not take %s, our own engine does: %s", model.name, error)
        base = self._registry.base
        self._loaded = {key: key for key in folders}
        self._vllm.start(base.folder, base.name, folders, rank, SPARE_ADAPTERS)

    def _start_again(self) -> None:
        now = time.monotonic()
        self._ends = [at for at in self._ends if now - at < QUIET_SECONDS] + [now]
        if len(self._ends) > MAX_RESTARTS:
            if len(self._ends) == MAX_RESTARTS + 1:
                logger.error("vLLM ended %d times; our own engine serves all", len(self._ends))
            self._ends = self._ends[: MAX_RESTARTS + 2]
            return
        status = self._vllm.exit_status
        logger.warning("vLLM ended with status %s; starting it again", status)
        self._vllm.stop()
        if self._stop.wait(min(8.0, 0.5 * 2 ** len(self._ends))):
            return
        self._start()


def key_of(model: ServedModel) -> str:
    """What vLLM calls an adapter: its name, and which weights."""
    return f"{model.name}@{model.weights_sha256}"
