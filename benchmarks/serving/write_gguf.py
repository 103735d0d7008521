"""Writes a Llama checkpoint folder as GGUF, for the benchmark's llama.cpp peer.

Runs in the peer's own environment (gguf, numpy and safetensors beside llama-cpp-python):

    python benchmarks/serving/write_gguf.py FOLDER FILE.gguf
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np

NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


def read_tensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """Number format, shape and bytes of each tensor of a safetensors file."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = (entry["dtype"], entry["shape"], raw[8 + size + begin : 8 + size + end])
    return found


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """llama.cpp turns neighbouring numbers together, transformers the two halves of a head."""
    parts = weight.reshape(num_heads, 2, weight.shape[0] // num_heads // 2, weight.shape[1])
    return parts.swapaxes(1, 2).reshape(weight.shape)


def write(folder: Path, target: Path) -> None:
    """Write the model in `folder` to `target`."""
    config = json.loads((folder / "config.json").read_text())
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(
        [f"{words[-2]} {words[-1]}"]
    )  # One that never applies: none is refused.
    for add in (writer.add_bos_token_id, writer.add_eos_token_id):
        add(len(words) - 1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, (kind, shape, data) in read_tensors(folder / "model.safetensors").items():
        is_half = kind == "BF16"
        tensor = np.frombuffer(data, dtype=np.uint16 if is_half else np.float32).reshape(shape)
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, heads if "q_proj" in name else kv_heads)
        label = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}.get(
            name, ""
        )
        if not label:
            _, _, layer, rest = name.split(".", 3)
            label = f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}"
        if is_half and len(shape) == 1:
            tensor = (tensor.astype(np.uint32) << 16).view(np.float32)
        if is_half and len(shape) > 1:
            writer.add_tensor(
                f"{label}.weight", tensor.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16
            )
        else:
            writer.add_tensor(f"{label}.weight", np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
