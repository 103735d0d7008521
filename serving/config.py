"""What a server is started with: which folders, where to listen, which limits.

Knows no model and no HTTP; every default stands here once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from serving.errors import ServingError

FALLBACK_TOTAL_TOKENS = 4_096
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of one set of weights. `max_total_tokens` 0 means: what the model allows.

    `kv_tokens` lines of keys and values are the memory budget; a request that finds no room
    waits. `prefill_chunk` is the most prompt tokens that run in a step beside rows that decode.
    """

    max_rows: int = 32
    max_total_tokens: int = 0
    kv_tokens: int = 65_536
    prefill_chunk: int = 256
    prefix_cache_tokens: int = 16_384

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ServingError(f"limit {name} is {value}; give a number from 0 up")

    def within(self, positions: int | None) -> Self:
        """The same for a model that has so many positions, or does not say how many."""
        asked = self.max_total_tokens or positions or FALLBACK_TOTAL_TOKENS
        total = min(asked, positions or asked, self.kv_tokens)
        return replace(self, max_total_tokens=total)


@dataclass(frozen=True)
class ServingLimits(EngineLimits):
    """Bounds that protect the server: those of each engine, and those of requests.

    `max_input_tokens` 0 means: what the model allows. Above `max_concurrent_requests` waiting
    and running, answers are 429. `max_best_of` and `max_top_n_tokens` are those of TGI's routes.
    On /v1, a request has at most `max_client_batch_size` answers, over all its prompts, and
    `max_top_logprobs` likely tokens beside each token. A connection nobody uses is kept
    `keep_alive_seconds`.
    """

    max_concurrent_requests: int = 128
    max_input_tokens: int = 0
    max_best_of: int = 2
    max_reward_best_of: int = 32
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    max_client_batch_size: int = 128
    max_top_logprobs: int = 20
    max_score_rows: int = 256
    max_body_bytes: int = 2_000_000
    deadline_seconds: float = 600.0
    keep_alive_seconds: int = 75

    @classmethod
    def read(cls, settings: Sequence[str], **given: float) -> Self:
        """Limits from texts `name=number`, over those `given`; ServingError names a bad one."""
        kinds = {name: type(value) for name, value in vars(cls()).items()}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in kinds:
                raise ServingError(f"limit {name!r} is unknown; known are {', '.join(kinds)}")
            try:
                given[name] = kinds[name](text)
            except ValueError as error:
                raise ServingError(f"limit {setting!r} has no number; write {name}=8") from error
        return cls(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ServeConfig:
    """One server: a base folder, further models (name, folder), an address, limits.

    `home` is watched for variants that come and go; `api_key` is asked of every caller when set.
    `allowed_hosts` are names that callers may give the server beside this machine's own; `hosts`
    are all. `joining` are adapters (name, folder) that come with the model they were made of, and
    are not missed while that is not here.
    """

    base: Path
    base_name: str
    models: tuple[tuple[str, Path], ...] = ()
    joining: tuple[tuple[str, Path], ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    dtype: str = "auto"
    device: str = "auto"
    home: Path | None = None
    api_key: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    cors: bool = False
    openai_dialect: bool = False
    prefill_logprobs: bool = False
    log_prompts: bool = False
    limits: ServingLimits = field(default_factory=ServingLimits)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that models may be loaded from at run time: home's and the given models'."""
        parents = [folder.resolve().parent for _, folder in self.models]
        home = [self.home.resolve() / "models"] if self.home is not None else []
        return (*home, *parents)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a request's Host may have; `*` is any.

        A page elsewhere can point its own name at this machine: on loopback only loopback's names
        and those allowed are answered, on other addresses those allowed, if any are given.
        """
        is_local = self.host in ("127.0.0.1", "localhost", "::1")
        known = ("127.0.0.1", "localhost", "[::1]", "::1", *self.allowed_hosts)
        return known if is_local or self.allowed_hosts else ("*",)

    def __post_init__(self) -> None:
        if self.api_key == "":
            raise ServingError("api_key is empty; give one, or none at all")
        if self.dtype not in DTYPES:
            raise ServingError(f"dtype {self.dtype!r} is unknown; known are {', '.join(DTYPES)}")
        if not 0 <= self.port <= 65_535:
            raise ServingError(f"port {self.port} is none; give 0 (any free) to 65535")
        # One that is named as the base is refused by the registry, which serves the others.
        names = [name for name, _ in self.models]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ServingError(f"model name {sorted(twice)[0]!r} is given twice; rename one")


def name_models(
    base: Path,
    *,
    packaged: Mapping[str, Path],
    variants: Sequence[Path],
    given: Sequence[tuple[str, Path]],
) -> tuple[tuple[str, Path], ...]:
    """Names and folders of everything to serve beside `base`: packaged, under home, given.

    A variant is named by its folder and hides a packaged model of that name; a given one has the
    last part of its path, or its whole hub id.
    """
    named = {name: folder for name, folder in packaged.items() if folder != base}
    named |= {folder.name: folder for folder in variants if folder.resolve() != base.resolve()}
    for name, folder in given:
        label = Path(name).name if Path(name).is_dir() else name
        if named.get(label, folder).resolve() != folder.resolve():
            raise ServingError(
                f"model name {label!r} means {named[label]} and {folder}; rename one of them"
            )
        named[label] = folder
    return tuple(named.items())
