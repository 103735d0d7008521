"""An adapter that is trained further, from exactly where it was saved.

Knows PEFT and the settings that an adapter brings along; knows nothing of data files or runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuning.config import LoraOptions, PrefixOptions, TuningConfig
from tuning.methods.requirements import MethodError
from tuning.models.merge import MERGEABLE
from tuning.models.peft_adapters import put_on

METHODS = {"lora": "lora", "dora": "lora", "prefix": "prefix", "prompt": "prompt", "ia3": "ia3"}
VIRTUAL = ("prefix", "prompt")


def check_goes_on(config: TuningConfig, kind: str) -> None:
    """MethodError where an adapter of this kind cannot go on with these settings.

    Its size, places and scale are its own, so that settings which say otherwise are refused.
    """
    if METHODS[kind] != ("lora" if config.method == "qlora" else config.method):
        merge = f", or merge it first with `arena models merge {config.base}`"
        raise MethodError(
            f"method {config.method!r}: base {config.base!r} is a {kind} adapter, which goes on as "
            f"one; give --method {METHODS[kind]}{merge if kind in MERGEABLE else ''}"
        )
    for name, own, plain in (
        ("lora", config.lora, LoraOptions(dora=kind == "dora")),
        ("prefix", config.prefix, PrefixOptions()),
    ):
        if own not in (plain, type(plain)()):
            raise MethodError(
                f"{name}: base {config.base!r} is an adapter, which goes on with the settings it "
                f"was made with; leave {name}.* out"
            )


def num_virtual_tokens(folder: Path) -> int:
    """How many positions the adapter in `folder` takes before a prompt."""
    from peft import PeftConfig

    return int(getattr(PeftConfig.from_pretrained(str(folder)), "num_virtual_tokens", None) or 0)


def continue_adapter(model: Any, folder: Path) -> Any:
    """The checkpoint `model` with the adapter in `folder` on it, ready to be trained.

    It begins exactly as it was saved. What once projected its virtual tokens was left behind when
    they were saved, so the tokens themselves are trained.
    """
    from peft import PeftConfig

    virtual = bool(PeftConfig.from_pretrained(str(folder)).is_prompt_learning)
    # PEFT loads virtual tokens frozen only.
    tuned = put_on(model, folder, is_trainable=not virtual)
    if virtual:
        for part in tuned.prompt_encoder.parameters():
            part.requires_grad_(True)
    return tuned
