"""Every decoder family that is said to work: its mask, its initial weights, its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_models import LLAMA, build, pixels
from torch import Tensor

from zerofit.models.classifier import ImageClassifier
from zerofit.models.patch_lm import BIDIRECTIONAL

# transformers 5.17 scripts gpt_bigcode as it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 40}
PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40}
OTHER_FIELDS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 40},
    "codegen": {**GPT, "rotary_dim": 4},
    "falcon": PLAIN,
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {**PLAIN, "intermediate_size": 48, "max_position_embeddings": 64},
    "gptj": {**GPT, "rotary_dim": 4},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 40, "state_size": 4},
    "persimmon": {**PLAIN, "intermediate_size": 48},
    "opt": {**PLAIN, "ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
}
HEAD_DIM = {"gemma", "gemma2", "gemma3_text", "qwen3", "glm", "glm4", "helium", "seed_oss", "ernie4_5", "gpt_oss"}
UNBOUNDED = {"gpt_oss"}  # its rotary scaling is written for the default number of positions
CAUSAL_ONLY = {"gpt_neo", "mamba"}


def fields_of(family: str) -> dict[str, Any]:
    fields = OTHER_FIELDS.get(family) or LLAMA | ({"head_dim": 8} if family in HEAD_DIM else {})
    if family == "qwen3_moe":
        fields = {**fields, "num_experts": 8, "moe_intermediate_size": 16}
    if family in UNBOUNDED:
        fields = {name: value for name, value in fields.items() if name != "max_position_embeddings"}
    return {"model_type": family, **fields}


def classifier(family: str, **model: Any) -> ImageClassifier:
    return build({"kind": "patch_lm", "shape": fields_of(family), "patch_size": 4, **model}).eval()


def influence(model: ImageClassifier) -> Tensor:
    """How strongly each token [4] moves the first position of the backbone's output."""
    width = model.head.in_features
    tokens = torch.randn(1, 4, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    model.backbone(inputs_embeds=tokens).last_hidden_state[0, 0].pow(3).sum().backward()
    assert tokens.grad is not None
    return tokens.grad[0].abs().amax(dim=-1)


@pytest.mark.parametrize("family", sorted(BIDIRECTIONAL | CAUSAL_ONLY))
def test_the_first_position_does_not_see_later_patches_under_a_causal_mask(family: str) -> None:
    model = classifier(family)
    seen = influence(model)
    assert seen[0] > 0
    assert (seen[1:] == 0).all()
    logits = model(pixels())
    logits.square().sum().backward()
    assert logits.isfinite().all()
    untouched = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert not untouched
    assert len(model.blocks) == 2


@pytest.mark.parametrize("kernel", ["auto", "eager"])
@pytest.mark.parametrize("family", sorted(BIDIRECTIONAL))
def test_the_first_position_sees_every_patch_under_a_bidirectional_mask(family: str, kernel: str) -> None:
    model = classifier(family, attention_mask="bidirectional", attention=kernel)
    assert (influence(model) > 0).all()
