"""stories260K, a Llama that was really trained (on TinyStories), as a directory that transformers loads.

Its file is of llama2.c: seven int32 (width, hidden width, layers, heads, key-value heads, vocabulary, context), then
float32 tensors. Query and key rows are interleaved there, and in halves in transformers.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FILES = DATA / "checkpoints" / "stories260K"
BYTES = 259
"""Tokens before the first piece: unknown, begin, end, and each byte."""
PLAIN = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% endfor %}"
"""A template that only writes what is said: the model was never told of turns."""


def save_stories(directory: Path) -> Path:
    """Weights, config and tokenizer."""
    disable_progress_bar()
    _model().save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def _model() -> LlamaForCausalLM:
    raw = (FILES / "stories260K.bin").read_bytes()
    width, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", raw[:28])
    values, at = torch.from_numpy(np.frombuffer(raw, dtype="<f4", offset=28).copy()), 0

    def take(*shape: int) -> Tensor:
        nonlocal at
        size = int(np.prod(shape))
        at += size
        return values[at - size : at].view(*shape)

    kv = width // heads * kv_heads
    embedding = take(vocabulary, width)
    norms = take(layers, width)
    q, k, v, o = (
        take(layers, width, width),
        take(layers, kv, width),
        take(layers, kv, width),
        take(layers, width, width),
    )
    norms_2 = take(layers, width)
    gate, down, up = take(layers, hidden, width), take(layers, width, hidden), take(layers, hidden, width)
    state = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding, "model.norm.weight": take(width)}
    for n in range(layers):
        state |= {
            f"model.layers.{n}.{name}.weight": value[n]
            for name, value in {
                "input_layernorm": norms,
                "post_attention_layernorm": norms_2,
                "self_attn.v_proj": v,
                "self_attn.o_proj": o,
                "mlp.gate_proj": gate,
                "mlp.down_proj": down,
                "mlp.up_proj": up,
            }.items()
        }
        state[f"model.layers.{n}.self_attn.q_proj.weight"] = _in_halves(q[n], heads)
        state[f"model.layers.{n}.self_attn.k_proj.weight"] = _in_halves(k[n], kv_heads)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model


def _in_halves(weight: Tensor, heads: int) -> Tensor:
    rows, width = weight.shape
    return weight.view(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)


def _tokenizer() -> PreTrainedTokenizerFast:
    raw, at = (FILES / "tok512.bin").read_bytes(), 4
    pieces: list[tuple[str, float]] = []
    while at < len(raw):
        score, length = struct.unpack("<fi", raw[at : at + 8])
        pieces.append((raw[at + 8 : at + 8 + length].decode().replace(" ", "▁"), score))
        at += 8 + length
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(name for name, _ in pieces[BYTES:])]
    vocabulary = {name: number for number, name in enumerate(names)}
    merges = [
        (-score, name[:cut], name[cut:])
        for name, score in pieces[BYTES:]
        for cut in range(1, len(name))
        if name[:cut] in vocabulary and name[cut:] in vocabulary
    ]
    inner = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=[(left, right) for _, left, right in sorted(merges, key=lambda one: one[0])],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = PLAIN
    return tokenizer
