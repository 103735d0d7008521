"""Names and what they mean: which engine, which adapter, which tokenizer, which weights.

An unknown name is an error, never the base. A folder that cannot be served is refused by name
with its reason while the rest goes on. Knows folders and engines; does not know HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from serving.adapters.peft_reader import Adapter, read_adapter, read_config
from serving.config import ServeConfig
from serving.engine.compilation import compile_beside
from serving.engine.engine import Engine
from serving.engine.worker import Worker
from serving.errors import (
    MissingBaseError,
    ModelLoadError,
    ServingError,
    UnknownModelError,
    is_panic,
)
from serving.models.loading import check_head, load_engine, read_head
from serving.models.names import check_name, printable
from serving.models.probe import (
    attempt,
    compare,
    engine_scores,
    plain_adapted_scores,
    probe_path,
)
from serving.models.probed import ProbedModels, probe_key
from serving.models.rendering import TemplateRenderer
from serving.models.throttle import throttled
from serving.models.tokenizers import CONFIG_FILE, TokenizerCache
from tuning.variant import (
    ADAPTER_CONFIG,
    Variant,
    VariantError,
    read_variant,
    stop_ids,
    weights_sha256,
)

logger = logging.getLogger(__name__)
BASE_ALIASES = ("", "tgi", "dummy")


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One name on the wire. `adapter` is the engine's key, None for weights of their own."""

    name: str
    kind: str
    engine: Engine
    adapter: str | None
    tokenizer: Any
    folder: Path
    weights_sha256: str
    parent: str | None
    eos_ids: frozenset[int]
    templates: TemplateRenderer
    head: torch.Tensor | None = None
    """Of a reward model, [hidden], which scores texts and writes none."""
    checkpoint_of: str | None = None
    """The run that goes on whose checkpoint this is; None for a variant that is done."""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def has_chat_template(self) -> bool:
        """Whether chat messages can be rendered for this model."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def max_total_tokens(self) -> int:
        """Prompt and answer together; virtual tokens take their places off."""
        return self.engine.limits.max_total_tokens - self.engine.adapters.num_virtual(self.adapter)


def is_called(model: ServedModel, origin: str) -> bool:
    """Whether an adapter's note of its base means this model: its name or its folder."""
    return origin == model.name or (
        bool(origin) and Path(origin).resolve() == model.folder.resolve()
    )


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Make a refusal of whatever a folder leads libraries to raise."""
    try:
        yield
    except (ServingError, VariantError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        logger.debug("what %s led to", folder, exc_info=True)
        line = " ".join(str(error).split())[:300]
        raise ModelLoadError(
            f"{folder}: cannot be served ({type(error).__name__}: {line}); mend or remove it"
        ) from error


class Registry:
    """All models of one server and the worker that runs them. Use as a context manager."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.worker = Worker()
        self.refused: dict[str, str] = {}
        self._models: dict[str, ServedModel] = {}
        self._engines: dict[str, Engine] = {}
        self._tokenizers = TokenizerCache()
        self._probed = ProbedModels(config.home)
        self._templates = TemplateRenderer(self._probed)
        self._is_up = False
        self._changing = threading.Lock()
        self._holding = threading.Lock()
        self._held: Counter[str | None] = Counter()
        self._number = 0
        self._waiting = dict(config.joining)
        self.worker.start()
        try:
            self._load_all()
            self._is_up = True
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engines; running requests are answered with a failure."""
        self.worker.stop()
        self._templates.close()

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._models.values()))

    @property
    def base(self) -> ServedModel:
        """The base model that an empty name means."""
        return self._models[self.config.base_name]

    @property
    def names(self) -> list[str]:
        """Names that are served, the base first."""
        return list(self._models)

    @property
    def engines(self) -> dict[str, Engine]:
        """Engines by the name of the model whose weights they hold."""
        return dict(self._engines)

    def resolve(self, name: str | None) -> ServedModel:
        """The model a name means; UnknownModelError lists the names there are."""
        if name is None or name in BASE_ALIASES:
            return self.base
        model = self._models.get(name)
        if model is None:
            raise UnknownModelError(name, self.names)
        return model

    def is_base_alias(self, name: str) -> bool:
        """Whether the name is reserved for the base."""
        return name in BASE_ALIASES or name == self.config.base_name

    # --- loading and unloading ------------------------------------------------------------

    def load(self, name: str, folder: Path, *, replace: bool = False) -> ServedModel:
        """Serve the model in `folder` as `name` from now on; streams that run go on.

        ServingError or VariantError says why a folder is refused.
        """
        with self._changing:
            check_name(name)
            if self.is_base_alias(name):
                raise ServingError(f"model name {name!r} means the base; choose another name")
            if name in self._models and not replace:
                raise ServingError(f"model name {name!r} is already served; choose another name")
            old = self._models.get(name)
            with refusing(folder):
                self._models[name] = model = self._load_variant(name, folder)
            self.refused.pop(name, None)
            if old is not None:
                self._discard(old)
            return model

    def offer(self, name: str, folder: Path, *, replace: bool = False) -> bool:
        """Serve a model if that can be, or note why not; whether it is served.

        An adapter whose base is not here is tried again when that comes.
        """
        self._waiting.pop(name, None)
        try:
            model = self.load(name, folder, replace=replace)
        except (ServingError, VariantError) as error:
            if isinstance(error, MissingBaseError):
                self._waiting[name] = folder
            self.refuse(name, folder, error)
            return False
        if model.adapter is None:
            self._load_waiting()
        return True

    def _load_waiting(self) -> None:
        for name, folder in list(self._waiting.items()):
            if name not in self._models:
                try:
                    self.load(name, folder)
                except MissingBaseError:
                    continue
                except (ServingError, VariantError) as error:
                    self.refuse(name, folder, error)
            del self._waiting[name]

    def forget(self, name: str) -> None:
        """A folder is gone: no more is said of why it was not served, nor is it waited for."""
        self.refused.pop(printable(name), None)
        self._waiting.pop(name, None)

    def refuse(self, name: str, folder: Path, error: Exception) -> None:
        """Note why a model is not served: for all to see, but where the folder lies for the log."""
        shown, reason = printable(name), printable(str(error))
        self.refused[shown] = reason.replace(printable(f"{folder.parent}/"), "")
        logger.warning("model %s is not served: %s", shown, reason)

    def unload(self, name: str) -> None:
        """Serve `name` no more; UnknownModelError when it is not served, nor for the base."""
        with self._changing:
            if self.is_base_alias(name):
                raise ServingError(f"model name {name!r} means the base, which stays loaded")
            if name not in self._models:
                raise UnknownModelError(name, self.names)
            self._discard(self._models.pop(name))

    def hold(self, model: ServedModel) -> None:
        """Keep a model's adapter for a request that may still ask it, until `let_go`."""
        with self._holding:
            self._held[model.adapter] += 1

    def let_go(self, model: ServedModel) -> None:
        """A request that held the model is over; what nobody means goes with the next change."""
        with self._holding:
            self._held -= Counter([model.adapter])

    def _in_use(self, engine: Engine) -> set[str]:
        """Adapters that rows run on, or that requests hold; in the worker's thread."""
        with self._holding:
            held = {a.name for a in engine.adapters.adapters if self._held[a.name]}
        return engine.running_adapters() | held

    def _beside_streams(self) -> AbstractContextManager[None]:
        """Around work that takes long: it takes small turns once there may be streams."""
        return throttled(lambda: self.worker.is_busy) if self._is_up else nullcontext()

    def _load_all(self) -> None:
        config = self.config
        with refusing(config.base):
            sha = weights_sha256(config.base)
            kind = read_variant(config.base).kind
            if kind == "reward":
                raise ModelLoadError(
                    f"base {config.base}: is a reward model, which scores texts and writes none; "
                    "give the model it was made from as the base and this one with --model"
                )
            self._models[config.base_name] = self._load_checkpoint(
                config.base_name, config.base, kind if kind in ("base", "full") else "base", sha
            )
        for name, folder in config.models:
            self.offer(name, folder)
        self._load_waiting()  # what was made of the base itself

    def _load_variant(self, name: str, folder: Path) -> ServedModel:
        with self._beside_streams():
            variant = read_variant(folder)
        if variant.is_adapter:
            return self._load_adapter(name, variant)
        return self._load_checkpoint(name, variant.folder, variant.kind, variant.weights_sha256)

    def _load_checkpoint(self, name: str, folder: Path, kind: str, sha: str) -> ServedModel:
        with self._beside_streams():
            config = self.config
            tokenizer = self._tokenizers.load(folder)
            ends = frozenset(stop_ids(tokenizer, folder))
            self._templates.check(folder, tokenizer)
            head = read_head(folder) if kind == "reward" else None
            engine = load_engine(folder, config.limits, device=config.device, dtype=config.dtype)
        check_head(folder, head, engine)
        self.worker.add(engine)
        self._engines[name] = engine
        if head is None:
            compile_beside(name, engine, self.worker)
        return ServedModel(
            name, kind, engine, None, tokenizer, folder, sha, None, ends, self._templates, head
        )

    def _load_adapter(self, name: str, variant: Variant) -> ServedModel:
        parent = self._parent_of(name, variant)
        self._number += 1
        key = f"{name}#{self._number}"
        tokenizer = parent.tokenizer
        with self._beside_streams():
            adapter = read_adapter(variant.folder, key)
            if variant.kind == "reward" and adapter.head is None:
                raise ModelLoadError(f"{variant.folder}: has no head to score with; tune it again")
            if (variant.folder / CONFIG_FILE).is_file():
                tokenizer = self._tokenizers.load(variant.folder)
            self._templates.check(variant.folder, tokenizer)
        check_head(variant.folder, adapter.head, parent.engine)
        ends = frozenset(stop_ids(tokenizer, variant.folder, parent.folder))
        self._change_adapters(parent.engine, add=adapter)
        try:
            self._probe(name, variant, parent, adapter)
        except ModelLoadError:
            self._change_adapters(parent.engine)
            raise
        return ServedModel(
            name, variant.kind, parent.engine, key, tokenizer, variant.folder,
            variant.weights_sha256, parent.name, ends, self._templates, adapter.head,
            variant.checkpoint_of,
        )  # fmt: skip

    def _probe(self, name: str, variant: Variant, parent: ServedModel, adapter: Adapter) -> None:
        """ModelLoadError where the engine does not write what PEFT would with this adapter."""
        engine, folder = parent.engine, variant.folder
        key = probe_key(
            (folder / ADAPTER_CONFIG).read_bytes(), variant.weights_sha256, parent.weights_sha256,
            str(engine.dtype), engine.device.type,
        )  # fmt: skip
        if key in self._probed:
            return
        room = engine.limits.max_total_tokens - engine.adapters.num_virtual(adapter.name)
        path = probe_path(engine.model.config, room)
        with self._beside_streams():
            expected = attempt(
                name, "PEFT", lambda: plain_adapted_scores(engine, adapter, folder, path)
            )
        found = attempt(
            name, "the engine", lambda: engine_scores(engine, path, adapter.name, self.worker)
        )
        compare(name, expected, found, engine.dtype)
        self._probed.add(key)

    def _parent_of(self, name: str, variant: Variant) -> ServedModel:
        """The loaded model with the fingerprint the adapter was tuned from."""
        if variant.base is None:
            # Made elsewhere: PEFT says which base by name; shapes are checked in any case.
            origin = str(read_config(variant.folder).get("base_model_name_or_path") or "")
            named = [m for m in self._models.values() if m.adapter is None and is_called(m, origin)]
            return named[0] if named else self.base
        for model in self._models.values():
            if model.adapter is None and model.weights_sha256 == variant.base.sha256:
                return model
        raise MissingBaseError(
            f"{name}: tuned from {variant.base.id!r} (weights {variant.base.sha256[:12]}), "
            f"which is not loaded; start the server with --base {variant.base.id}"
        )

    def _discard(self, model: ServedModel) -> None:
        """Free a model that no name means any more; requests in work keep their adapter."""
        if model.adapter is None:
            self.worker.retire(model.engine)
            self._engines = {n: e for n, e in self._engines.items() if e is not model.engine}
        else:
            self._change_adapters(model.engine)

    def _change_adapters(self, engine: Engine, add: Adapter | None = None) -> None:
        """Stack anew what names mean, what is in use, and `add`; swap between steps."""
        while not self._try_change(engine, add):
            pass  # A row joined meanwhile on an adapter about to go: look again.

    def _try_change(self, engine: Engine, add: Adapter | None) -> bool:
        wanted = {m.adapter for m in self._models.values() if m.engine is engine}
        installed, running = self.worker.call(
            lambda: (engine.adapters.adapters, self._in_use(engine))
        ).result()
        keep = [a for a in installed if a.name in wanted or a.name in running]
        adapters = [*keep, *([add] if add is not None else [])]
        with self._beside_streams():
            prepared = engine.prepare_adapters(adapters)

        def swap() -> bool:
            if not self._in_use(engine) <= {a.name for a in keep}:
                return False
            engine.install_adapters(adapters, prepared)
            return True

        return self.worker.call(swap).result()
