"""Loads a checkpoint folder as an engine: which number format, which device.

Knows transformers and hardware; does not know names, adapters or requests.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from serving.adapters.peft_reader import HEAD, as_head
from serving.config import EngineLimits
from serving.engine.compiled_runner import may_compile
from serving.engine.engine import Engine
from serving.errors import ModelLoadError
from serving.models.memory import free_bytes
from serving.models.probe import attempt, compare, engine_scores, plain_scores, probe_path
from tuning.variant import check_checkpoint, refuse_missing

# Below this many bytes in fp32 a model stays in the cache of any server core.
CACHE_BYTES = 48 * 2**20
# A chunk of a prompt, and how many times as long it may take in bf16 where steps are compiled.
PROMPT_ROWS = 256
MOST_PROMPT_TIME = 4.0
# Of the memory that is free after the weights; steps and further models need some as well.
KV_SHARE = 0.5


def load_engine(folder: Path, limits: EngineLimits, *, device: str, dtype: str) -> Engine:
    """Load the weights in `folder` (safetensors only); ModelLoadError names what is wrong."""
    shape = check_checkpoint(folder)
    place = pick_device(device)
    refuse_layers(folder, shape)
    size = _weight_bytes(folder, shape)
    number_format = pick_dtype(dtype, place, size, is_compiled=may_compile(shape))
    require_room(folder, size * number_format.itemsize // 4, free_bytes(place))
    transformers_logging.disable_progress_bar()
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=number_format,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # They are in the report, and refused by name.
            # A reward model has no output head; its input table stands in, and nothing is written.
            **({"tie_word_embeddings": True} if is_reward(shape) else {}),
        )
    except Exception as error:  # the classes raise whatever a config's values lead to
        line = " ".join(str(error).split())[:300]
        raise ModelLoadError(
            f"{folder}: cannot be loaded as a causal language model: {line}"
        ) from error
    assert isinstance(model, PreTrainedModel)
    if is_reward(shape):  # Its head is read apart.
        loading["unexpected_keys"] = {key for key in loading["unexpected_keys"] if key != HEAD}
    refuse_missing(folder, loading)
    refuse_not_finite(folder, model)
    return _new_engine(folder, model.to(place).eval(), limits)


def _new_engine(folder: Path, model: PreTrainedModel, limits: EngineLimits) -> Engine:
    """The engine over a model, once a short row of it came out as the plain model has it."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = limits.within(positions)
    path = probe_path(model.config, limits.max_total_tokens)
    name, place = str(folder), model.device
    expected = attempt(name, "transformers", lambda: plain_scores(model, path, place))
    try:
        engine = Engine(model, limits)
    except ModelLoadError:
        raise
    except Exception as error:  # what an architecture does with one token of ours
        line = " ".join(str(error).split())[:300]
        raise ModelLoadError(
            f"{folder}: {type(model).__name__} does not run in the engine "
            f"({type(error).__name__}: {line}); this architecture cannot be served"
        ) from error
    left = free_bytes(place)
    if left is not None:
        engine.limit_memory(int(left * KV_SHARE))
    found = attempt(name, "the engine", lambda: engine_scores(engine, path))
    compare(name, expected, found, engine.dtype)
    engine.stats.clear()
    return engine


def refuse_layers(folder: Path, config: PreTrainedConfig) -> None:
    """ModelLoadError for more layers than weights: building them would take hours and gigabytes."""
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    weights = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            weights += len(file.keys())
    if not isinstance(layers, int) or layers > weights:
        raise ModelLoadError(
            f"{folder}: config.json gives {layers!r} layers, and there are {weights} weights; give "
            "the config.json that they were saved with"
        )


def refuse_not_finite(folder: Path, model: PreTrainedModel) -> None:
    """ModelLoadError for a weight with NaN or infinity in it."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise ModelLoadError(
                f"{folder}: {name} holds values that are not finite in {weight.dtype}; copy the "
                "checkpoint again, or serve it in another number format"
            )


def is_reward(config: PreTrainedConfig) -> bool:
    """Whether a checkpoint says that it has a head that scores."""
    names = getattr(config, "architectures", None) or ()
    return any("SequenceClassification" in str(name) for name in names)


def read_head(folder: Path) -> torch.Tensor:
    """The head [hidden] of a reward model's checkpoint; ModelLoadError where it has none."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if HEAD in file.keys():  # noqa: SIM118 - not a mapping
                return as_head(folder, file.get_tensor(HEAD))
    raise ModelLoadError(f"{folder}: no {HEAD} among its weights; give a whole reward model")


def check_head(folder: Path, head: torch.Tensor | None, engine: Engine) -> None:
    """ModelLoadError where a head is not as wide as the states of the model it is to read."""
    width = engine.model.config.get_text_config().hidden_size
    if head is not None and len(head) != width:
        raise ModelLoadError(
            f"{folder}: its head reads {len(head)} numbers, but the model's states have {width}; "
            "give the base it was made from"
        )


def require_room(folder: Path, need: int, free: int | None) -> None:
    """ModelLoadError when weights of `need` bytes do not go into the memory that is free."""
    if free is not None and need > free:
        raise ModelLoadError(
            f"{folder}: the weights take {need / 2**30:.1f} GiB and {free / 2**30:.1f} GiB of "
            "memory are free; free some, or serve a smaller model or number format"
        )


def pick_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def pick_dtype(
    wanted: str, device: torch.device, fp32_bytes: int, *, is_compiled: bool
) -> torch.dtype:
    """`auto`: bf16 on a GPU; on a CPU what a timing says, fp32 where the weights fit the cache.

    Timed are torch's products. A compiled step is bound by reading weights, of which bf16 has
    half the bytes; then only prompts are torch's, and may take longer, but not many times so.
    """
    if wanted != "auto":
        return getattr(torch, wanted)  # type: ignore[no-any-return]
    if device.type == "cuda":
        return torch.bfloat16
    if fp32_bytes <= CACHE_BYTES:
        return torch.float32
    num_rows, most = (PROMPT_ROWS, MOST_PROMPT_TIME) if is_compiled else (2, 1.0)
    full, half = (time_product(dtype, num_rows) for dtype in (torch.float32, torch.bfloat16))
    return torch.bfloat16 if half < most * full else torch.float32


def time_product(dtype: torch.dtype, num_rows: int) -> float:
    """Seconds of torch's product of rows and 64 MiB (fp32) of weights: more than most caches."""
    weights = [torch.ones(2048, 2048, dtype=dtype) for _ in range(4)]
    rows = torch.ones(num_rows, 2048, dtype=dtype)
    best = float("inf")
    for _ in range(4):
        start = time.perf_counter()
        for weight in weights:
            functional.linear(rows, weight)
        best = min(best, time.perf_counter() - start)
    return best


def _weight_bytes(folder: Path, config: PreTrainedConfig) -> int:
    """Size of the weights if they were fp32: bf16 files count double."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    stored = getattr(config, "dtype", None)
    return size * (1 if stored in (None, torch.float32) else 2)
