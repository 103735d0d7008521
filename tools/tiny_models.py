"""Builds a tiny random model of every causal architecture of the installed transformers.

A config is made small by the names of its settings; what an architecture needs besides stands in
`SETTINGS`. `SKIPPED` says which cannot be built so, and why. Knows transformers only.
"""

from __future__ import annotations

from typing import Any

import torch

# How large a setting may be, by its name.
LIMITS: dict[int, str] = {
    1: "n_group topk_group num_expert_group num_shared_experts n_shared_experts "
    "moe_num_shared_experts",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_blocks "
    "num_encoder_layers num_decoder_layers max_window_layers num_key_value_heads num_kv_heads "
    "swa_num_key_value_heads num_experts_per_tok moe_topk moe_k num_experts_per_token "
    "index_n_heads linear_num_key_heads",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads attention_heads "
    "decoder_attention_heads num_encoder_attention_heads num_decoder_attention_heads num_experts "
    "swa_num_attention_heads num_local_experts n_routed_experts moe_num_experts zero_expert_num "
    "linear_num_value_heads linear_num_heads time_step_rank mamba_dt_rank",
    8: "head_dim kv_channels d_head dim_head attention_head_size v_head_dim qk_nope_head_dim "
    "qk_rope_head_dim index_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim "
    "mamba_d_head mamba_head_dim global_head_dim swa_head_dim kv_lora_rank q_lora_rank "
    "o_lora_rank gated_norm_rank adapter_rank laurel_rank hc_lowrank rotary_dim mamba_d_state "
    "state_size ssm_state_size hidden_size_per_layer_input query_pre_attn_scalar",
    16: "qk_head_dim mamba_chunk_size chunk_size",
    32: "hidden_size d_model n_embd emb_dim embedding_dim embedding_size input_embedding_size "
    "output_embedding_size word_embed_proj_dim backbone_hidden_size lru_width dim_model_base "
    "shape_embed_dim pronunciation_embed_dim attention_hidden_size",
    48: "intermediate_size ffn_dim n_inner dff d_inner ffn_hidden_size dim_ff feed_forward_size "
    "encoder_ffn_dim decoder_ffn_dim moe_intermediate_size shared_expert_intermediate_size "
    "shared_intermediate_size intermediate_size_mlp expert_ffn_hidden_size "
    "dense_intermediate_size moe_shared_expert_intermediate_size shared_experts_intermediate_size",
    64: "sliding_window sliding_window_size window_size",
    512: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions "
    "context_length index_topk",
}
LIMIT = {name: limit for limit, names in LIMITS.items() for name in names.split()}
WORDS = ("vocab_size", "decoder_vocab_size", "unpadded_vocab_size", "vocab_size_per_layer_input")
# Layers of these kinds keep a state instead of keys and values; one of each kind is built.
STATEFUL = ("linear", "mamba", "conv", "recurrent")
LEFT_OUT = object()
HEAD = {"head_dim": 8}
DECODER: dict[str, Any] = {"is_decoder": True}
SLIDING = ["sliding_attention", "full_attention"]
ROTARY = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
# What an architecture needs besides small sizes.
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra"),
            *("ernie", "megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert"),
            *("roformer", "xlm-roberta", "xlm-roberta-xl"),
        ),
        DECODER,
    ),
    **dict.fromkeys(["hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"], HEAD),
    "bamba": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "attn_layer_indices": [1],
        "layer_types": LEFT_OUT,
    },
    "cohere_compass_text": {
        "layer_types": SLIDING,
        "rope_parameters": dict.fromkeys(SLIDING, ROTARY),
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
    },
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "layer_types": SLIDING,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 48,
    },
    "jamba": {
        "num_hidden_layers": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layer_types": LEFT_OUT,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"ffn_hidden_size": 48, "num_experts_per_tok": 2},
    "mamba2": {"num_heads": 8},
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "layer_types": LEFT_OUT},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
}
SKIPPED = {
    "blt": "reads bytes in patches of its own and takes no ids of a tokenizer",
    "dbrx": "its config lacks the rotary settings that its own layers read (transformers)",
    "dots3_note": "needs the layer settings of its released sizes",
    "gemma3n": "needs timm for its eyes; its text part is in the table as gemma3n_text",
    "gemma4_assistant": "drafts tokens for another model, whose states it reads",
    "gemma4_unified_assistant": "drafts tokens for another model, whose states it reads",
    "musicgen": "continues sound codes, not text",
    "musicgen_melody": "continues sound codes, not text",
    "qwen4_exp": "needs the settings of its text part; that is in the table as qwen4_exp_text",
    "xlstm": "its kernels take heads of the released sizes only",
    "zamba": "its shared layer takes widths of the released sizes only",
    "zamba2": "its shared layer takes widths of the released sizes only",
}


def kinds() -> list[str]:
    """Model types of every causal architecture of the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def make_config(kind: str, vocabulary: int, **settings: Any) -> Any:
    """A config of that type with two layers of width 32, or one layer of each kind it has."""
    from transformers import CONFIG_MAPPING

    return _small(CONFIG_MAPPING[kind], vocabulary, {**SETTINGS.get(kind, {}), **settings})


def make_tiny(kind: str, vocabulary: int, **settings: Any) -> Any:
    """A random model of that type in fp32."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(make_config(kind, vocabulary, **settings)).float()


def _small(config_class: Any, vocabulary: int, settings: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    given = config_class().to_dict()
    small: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    for name, value in given.items():
        if name in LIMIT and isinstance(value, int) and not isinstance(value, bool):
            small[name] = min(value, LIMIT[name])
    small |= {name: vocabulary for name in WORDS if name in given}
    for part, part_class in getattr(config_class, "sub_configs", {}).items():
        if isinstance(given.get(part), dict):
            kind = given[part].get("model_type")
            # A lazy table, whose `get` knows nothing that was not asked for before.
            known = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else part_class  # noqa: SIM401
            small[part] = _small(known, vocabulary, SETTINGS.get(kind, {})).to_dict()
    if "kv_lora_rank" in given:  # latent attention: every head has keys of its own
        small["num_key_value_heads"] = LIMIT["num_attention_heads"]
    types = given.get("layer_types") or given.get("layers_block_type") or []
    if len(set(types)) > 1 and any(word in one for one in types for word in STATEFUL):
        small["layer_types"] = list(dict.fromkeys(types))
        small["num_hidden_layers"] = len(small["layer_types"])
    small |= settings
    return config_class(**{name: value for name, value in small.items() if value is not LEFT_OUT})
