"""Whether a model's attention keeps packed rows apart: a small copy of it is asked."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from zerofit.config.errors import UserError

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "head_dim": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "initializer_range": 0.2,  # at the usual 0.02 rows hardly count for one another
}
"""Sizes of the copy, of those that a model's config has."""
LENGTHS = (7, 4, 9)
"""Of the rows that are packed."""
CLOSE = 1e-3
"""Largest difference of logits, relative to their size, that rounding may make (in float32 it makes 1e-6)."""


def check_isolation(config: PreTrainedConfig, attention: str = "sdpa", device: torch.device | None = None) -> None:
    """Raise UserError where a row in a pack comes out otherwise than alone. `attention` is transformers' name.

    The copy has random weights, and two layers, or one of each kind that the model mixes.
    """
    device = device or torch.device("cpu")
    dtype = torch.bfloat16 if attention.startswith("flash") else torch.float32
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        try:
            model = AutoModelForCausalLM.from_config(shrunk(config), attn_implementation=attention)
        except (ValueError, ImportError) as error:
            raise UserError(f"model.attention: {' '.join(str(error).split())[:200]}") from None
        rows = [torch.randint(3, SMALL["vocab_size"], (1, length)) for length in LENGTHS]
    model = model.to(device, dtype).eval()
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    with torch.no_grad():
        try:
            together = _logits(model, torch.cat(rows, dim=1).to(device), position_ids=positions.to(device))
        except TypeError:
            raise _refusal(config, attention, "it takes no position_ids") from None
        alone = torch.cat([_logits(model, row.to(device)) for row in rows], dim=1)
    apart = float((together - alone).abs().max() / alone.abs().max())
    close = CLOSE if dtype == torch.float32 else 30 * CLOSE
    if not apart <= close:
        raise _refusal(config, attention, f"logits of a packed row differ by {apart:.1%} from those of the row alone")


def shrunk(config: PreTrainedConfig) -> PreTrainedConfig:
    """A copy of a config of a very small model of the same kind."""
    known = config.to_dict()
    small: dict[str, Any] = {
        name: size for name, size in SMALL.items() if name in known or name in config.attribute_map
    }
    if "num_key_value_heads" in known:
        grouped = known["num_key_value_heads"] != known["num_attention_heads"]
        small["num_key_value_heads"] = SMALL["num_attention_heads"] // (2 if grouped else 1)
    kinds = known.get("layer_types")
    layers = max(2, len(set(kinds))) if kinds else 2
    if kinds:
        each = list(dict.fromkeys(kinds))
        small["layer_types"] = (each * layers)[:layers]
    copied = copy.deepcopy(config)
    copied.update({**small, "num_hidden_layers": layers, "pad_token_id": None, "use_cache": False})
    return copied


def _logits(model: Any, tokens: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=tokens, use_cache=False, **more).logits
    return logits.float()


def _refusal(config: PreTrainedConfig, attention: str, why: str) -> UserError:
    return UserError(
        f"data.packing: the attention of {config.model_type} ({attention}) does not keep packed rows apart ({why}); "
        "set data.packing=false"
    )
