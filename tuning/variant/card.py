"""Writes the model card of a variant: what it is, how it was made, how to use it."""

from __future__ import annotations

from typing import Any

from tuning.variant.folder import Variant
from tuning.variant.plots import MEASURES

WHAT = {
    "full": "all weights of the base changed",
    "lora": "a low-rank adapter beside the frozen base",
    "dora": "a weight-decomposed low-rank adapter beside the frozen base",
    "prefix": "trained keys and values before the prompt, the base frozen",
    "prompt": "trained embeddings before the prompt, the base frozen",
    "ia3": "trained scales of activations, the base frozen",
}
PURPOSE = {
    "sft": "An instruction-tuned variant",
    "reward": "A reward model, which scores answers and writes none, made",
    "dpo": "A variant tuned on preferences (DPO)",
    "kto": "A variant tuned on answers called good and bad (KTO)",
    "rl": "A variant tuned by reinforcement learning",
}


def write_card(variant: Variant) -> str:
    """Markdown with the YAML head that model hubs read."""
    run = variant.run
    base = variant.base.id if variant.base else "unknown"
    scores = variant.kind == "reward"
    objective = run["config"].get("objective", "sft")
    what = WHAT.get(run["config"]["method"] if scores else variant.kind, variant.kind)
    tag = "instruction-tuned" if objective == "sft" else objective
    lines = [
        "---",
        f"base_model: {base}",
        "library_name: " + ("peft" if variant.is_adapter else "transformers"),
        "pipeline_tag: " + ("text-classification" if scores else "text-generation"),
        f"tags: [{tag}, {variant.kind}]" if tag != variant.kind else f"tags: [{tag}]",
        "---",
        "",
        f"# {variant.name}",
        "",
        f"{PURPOSE[objective]} of `{base}`: {what}{', and a scalar head' if scores else ''}.",
        "",
        *_table(variant, run),
        "",
        "![Loss over steps](loss.png)",
        *(f"![{label}]({name})" for name, (label, _) in MEASURES.items() if name in variant.files),
        "",
        "## Use",
        "",
        "```sh",
        f"arena up            # with this folder in <home>/models/{variant.name}",
        f"arena reward score rows.jsonl --model {variant.name}"
        if scores
        else f"arena eval {variant.name}",
        "```",
        "",
        "```python",
        *(_python_scores(variant, base) if scores else _python(variant, base)),
        "```",
        "",
        "Every file's sha256 and the whole configuration are in `variant.json`; "
        f"`arena models verify {variant.name}` checks them.",
    ]
    return "\n".join(lines) + "\n"


def _table(variant: Variant, run: dict[str, Any]) -> list[str]:
    metrics = variant.metrics
    facts = {
        "method": run["config"]["method"] if variant.kind == "reward" else variant.kind,
        "trained parameters": f"{run['parameters']['trained']:,} of {run['parameters']['all']:,}",
        "data": ", ".join(run["config"]["data"]),
        **_amounts(run["ledger"]),
        "steps": f"{run['steps']:,}",
        "peak learning rate": f"{run['learning_rate']:g}",
        "held-out loss": f"{metrics['eval_loss']:.4f}"
        if "eval_loss" in metrics
        else "not measured",
        "time": f"{run['seconds']:.0f} s on {run['device']}",
        "seed": str(run["config"]["seed"]),
    }
    if "eval_accuracy" in metrics:
        facts["held-out pairs with the chosen answer above"] = f"{metrics['eval_accuracy']:.1%}"
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]


def _amounts(ledger: dict[str, Any]) -> dict[str, str]:
    """How much was trained on: rows and tokens, or judgements."""
    if "tokens" not in ledger:
        left = sum(ledger["left_out"].values())
        used, held = ledger["used"], ledger["heldout"]
        return {"judgements": f"{used:,} trained, {held:,} held out, {left:,} left out"}
    rows, tokens = ledger["rows"], ledger["tokens"]
    return {
        "rows": f"{rows['trained']:,} trained, {rows['heldout']:,} held out",
        "tokens in the rows": f"{tokens['trained']:,} trained, {tokens['masked']:,} masked",
    }


def _python_scores(variant: Variant, base: str) -> list[str]:
    """How transformers and PEFT load it; its head reads the last token that is no padding."""
    lines = [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
    ]
    if not variant.is_adapter:
        return [*lines, 'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")']
    return [
        "from peft import PeftModel",
        *lines,
        "base = AutoModelForSequenceClassification.from_pretrained(",
        f'    "BASE", num_labels=1, pad_token_id=tokenizer.pad_token_id)  # BASE is {base}',
        'model = PeftModel.from_pretrained(base, "FOLDER")',
    ]


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
