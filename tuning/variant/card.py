"""Writes the model card of a variant: what it is, how it was made, how to use it."""

from __future__ import annotations

from typing import Any

from tuning.variant.folder import Variant

WHAT = {
    "full": "all weights of the base changed",
    "lora": "a low-rank adapter beside the frozen base",
    "dora": "a weight-decomposed low-rank adapter beside the frozen base",
    "prefix": "trained keys and values before the prompt, the base frozen",
    "prompt": "trained embeddings before the prompt, the base frozen",
    "ia3": "trained scales of activations, the base frozen",
}


def write_card(variant: Variant) -> str:
    """Markdown with the YAML head that model hubs read."""
    run = variant.run
    base = variant.base.id if variant.base else "unknown"
    lines = [
        "---",
        f"base_model: {base}",
        "library_name: " + ("peft" if variant.is_adapter else "transformers"),
        "pipeline_tag: text-generation",
        f"tags: [instruction-tuned, {variant.kind}]",
        "---",
        "",
        f"# {variant.name}",
        "",
        f"An instruction-tuned variant of `{base}`: {WHAT.get(variant.kind, variant.kind)}.",
        "",
        *_table(variant, run),
        "",
        "![Loss over steps](loss.png)",
        "",
        "## Use",
        "",
        "```sh",
        f"arena up            # with this folder in <home>/models/{variant.name}",
        f"arena eval {variant.name}",
        "```",
        "",
        "```python",
        *_python(variant, base),
        "```",
        "",
        "Every file's sha256 and the whole configuration are in `variant.json`; "
        f"`arena models verify {variant.name}` checks them.",
    ]
    return "\n".join(lines) + "\n"


def _table(variant: Variant, run: dict[str, Any]) -> list[str]:
    metrics = variant.metrics
    rows = run["ledger"]["rows"]
    tokens = run["ledger"]["tokens"]
    facts = {
        "method": variant.kind,
        "trained parameters": f"{run['parameters']['trained']:,} of {run['parameters']['all']:,}",
        "data": ", ".join(run["config"]["data"]),
        "rows": f"{rows['trained']:,} trained, {rows['heldout']:,} held out",
        "tokens in the rows": f"{tokens['trained']:,} trained, {tokens['masked']:,} masked",
        "steps": f"{run['steps']:,}",
        "peak learning rate": f"{run['learning_rate']:g}",
        "held-out loss": f"{metrics['eval_loss']:.4f}"
        if "eval_loss" in metrics
        else "not measured",
        "time": f"{run['seconds']:.0f} s on {run['device']}",
        "seed": str(run["config"]["seed"]),
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]


def _python(variant: Variant, base: str) -> list[str]:
    if not variant.is_adapter:
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")',
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        ]
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("BASE")  # the folder or id of {base}',
        'model = PeftModel.from_pretrained(base, "FOLDER")',
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    ]
