"""Command texts that a CAD-MLLM writes: what it decodes with a cache, and what the grammar holds it to."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_cad_models import BOTH, SHAPE, built, cad_spec
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from zerofit.cad import grammar, text
from zerofit.cad.parts import part
from zerofit.config.cad import Cad
from zerofit.config.errors import UserError
from zerofit.config.grpo import Sampling
from zerofit.data.byte_tokenizer import byte_tokenizer, part_tokenizer
from zerofit.data.cad_inputs import Slots
from zerofit.data.cad_loader import CadCollator, CadSample
from zerofit.generate.commands import CommandTokens, Constrained
from zerofit.generate.completion import Completion
from zerofit.generate.conditioned import NOTHING, ConditionedGenerator
from zerofit.launch.generating import Wanted, _check_told
from zerofit.models.cad_mllm import CadMllm

CPU = torch.device("cpu")
PAD, STOP = 258, 257
COLLATE = CadCollator(pad=PAD, slots=Slots(points=3, image=4), image_size=8, mean=(0, 0, 0), std=(1, 1, 1))
SEEDS = [3, 1, 4, 1, 5]


@cache
def model() -> CadMllm:
    return built(
        cad_spec(**BOTH, shape={**SHAPE, "vocab_size": 272, "max_position_embeddings": 256, "initializer_range": 0.3})
    ).eval()


def prompts() -> list[CadSample]:
    """A cloud and an image, text alone, a cloud and two images, an image, and the first one again."""
    draw = np.random.default_rng(0)
    tokens = [draw.integers(0, 256, size).astype(np.int32) for size in (4, 9, 2, 0)]
    clouds = [draw.uniform(-1, 1, (16, 6)).astype(np.float32) for _ in range(2)]
    images = [draw.integers(0, 256, (8, 8, 3)).astype(np.uint8) for _ in range(3)]
    rows = [
        CadSample(tokens[0], NOTHING, clouds[0], (images[0],)),
        CadSample(tokens[1], NOTHING, None, ()),
        CadSample(tokens[2], NOTHING, clouds[1], (images[1], images[2])),
        CadSample(tokens[3], NOTHING, None, (images[2],)),
    ]
    return [*rows, rows[0]]


def complete(sampling: Sampling, batch: int | None = None, **more: Any) -> list[Completion]:
    return ConditionedGenerator(CPU, COLLATE, (STOP,), batch, **more)(model(), prompts(), SEEDS, sampling)


def likeliest(prompt: CadSample, most: int) -> list[int]:
    """The likeliest tokens, by a whole forward pass for each: no cache, no padding, no `generate`."""
    found: list[int] = []
    while len(found) < most and STOP not in found:
        batch = COLLATE([replace(prompt, commands=np.array(found, dtype=np.int32))])
        seen = {name: value for name, value in batch.items() if name != "labels"}
        with torch.no_grad():
            found.append(int(model()(**seen)["logits"][0, -1].argmax()))
    return found


def test_decoding_with_a_cache_is_forward_after_forward() -> None:
    made = complete(Sampling(temperature=0, max_tokens=24))
    assert [one.tokens for one in made] == [likeliest(prompt, 24) for prompt in prompts()]
    assert len({tuple(one.tokens) for one in made}) == 4, "what is shown decides"
    assert any(len(set(one.tokens)) > 6 for one in made), "not the same token again and again"


@pytest.mark.parametrize("batch", [1, 2])
def test_a_completion_depends_on_no_companion(batch: int) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=20)
    together, apart = complete(sampling), complete(sampling, batch)
    assert [one.tokens for one in together] == [one.tokens for one in apart]
    assert together[0].tokens != together[4].tokens, "the same prompt, another seed"


def test_progress_counts_completions() -> None:
    seen: list[int] = []
    generate = ConditionedGenerator(CPU, COLLATE, (STOP,), 2)
    generate(model(), prompts(), SEEDS, Sampling(max_tokens=40), seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(prompts())


def test_a_context_too_short_is_refused() -> None:
    context = model().config.max_position_embeddings
    with pytest.raises(UserError, match=f"prompt of 13 tokens .* context of {context} tokens"):
        complete(Sampling(max_tokens=context - 10))


@pytest.mark.parametrize(("images", "said"), [(1, "trained on 2 or more at once"), (2, ""), (3, ""), (5, None)])
def test_as_many_images_are_taken_as_rows_saw_at_once(
    images: int, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = cad_spec(**BOTH)
    data = Cad(source="parts", mix={"image": 1}, views=4, views_at_once=(2, 3))
    spec = spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"data": data})})
    wanted = Wanted(Path("run"), Path("out.step"), images=(Path("one.png"),) * images)
    if said is None:
        with pytest.raises(UserError, match="^--image: 5 images, but .* saw 3 at once at most: leave 2 out$"):
            _check_told(wanted, spec)
    else:
        _check_told(wanted, spec)
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_held_to_the_grammar_a_model_that_has_learnt_nothing_writes_command_texts(temperature: float) -> None:
    tokenizer = byte_tokenizer()
    held = CommandTokens(tokenizer, [STOP], 272, CPU)
    made = complete(Sampling(temperature=temperature, max_tokens=160), tokens=held)
    for one in made:
        said = tokenizer.decode(one.tokens[:-1] if one.stopped else one.tokens)
        assert grammar.allowed(said) is not None, said
        if one.stopped:
            text.read(said)
    free = complete(Sampling(temperature=temperature, max_tokens=160))
    assert all(grammar.allowed(tokenizer.decode(one.tokens)) is None for one in free)


def test_rows_of_a_batch_are_at_different_places() -> None:
    """Each is left what its own text can go on with; one that has ended is left alone."""
    held = CommandTokens(byte_tokenizer(), [STOP], 272, CPU)
    step, scores = Constrained(held, 2, width=1), torch.zeros(2, 272)
    texts = [b"loop\ncircle 128 1", [*text.write(part(0, 0).sequence).encode(), STOP, PAD]]
    width = max(map(len, texts))
    rows = torch.tensor([[0, *one, *[PAD] * (width - len(one))] for one in texts])
    for length in range(1, len(texts[0]) + 2):
        left = step(rows[:, :length], scores).isfinite()
    assert bytes(left[0].nonzero().flatten().tolist()) == b" 0123456789"
    other = Constrained(held, 1, width=1)
    for length in range(1, width + 2):
        left = other(rows[1:, :length], scores[1:]).isfinite()
        if length == width - 1:
            assert left.nonzero()[:, 1].tolist() == [STOP], "a whole text can end alone"
    assert left.all()


@given(st.integers(0, 200))
def test_every_command_text_passes(index: int) -> None:
    written = text.write(part(0, index).sequence)
    for held, tokens in ((merged(), part_tokenizer()(written)["input_ids"]), (spaced(), SPACED.encode(written).ids)):
        state = grammar.start()
        for token in tokens:
            assert held.mask(state)[token], SPACED.decode([token])
            after = held.after(state, token)
            assert after is not None
            state = after
        assert state.finished
        assert held.mask(state).nonzero().flatten().tolist() == sorted(held.stops)


@cache
def merged() -> CommandTokens:
    tokenizer = part_tokenizer()
    return CommandTokens(tokenizer, [tokenizer.eos_token_id], len(tokenizer) + 8, CPU)


def _spaced() -> Tokenizer:
    """As SentencePiece has it: a space before each text, which decoding takes away again."""
    characters = ["▁", "\n", "-", *"abcdefghijklmnopqrstuwxz0123456789", "▁128", "▁loop", "▁line", "ne", "."]
    pieces = [("</s>", 0.0), *((one, -len(characters) / len(one)) for one in characters)]
    inner = Tokenizer(models.Unigram(pieces, unk_id=None, byte_fallback=False))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return inner


SPACED = _spaced()


@cache
def spaced() -> CommandTokens:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=SPACED, eos_token="</s>")
    return CommandTokens(tokenizer, [tokenizer.eos_token_id], len(tokenizer), CPU)


def test_a_tokenizer_without_the_characters_is_refused() -> None:
    inner = Tokenizer(models.WordLevel({"loop": 0, "\n": 1, "</s>": 2}, unk_token="</s>"))
    held = CommandTokens(PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>"), [2], 3, CPU)
    assert held.mask(grammar.start()).tolist() == [True, False, False]
    behind = grammar.allowed("loop\n")
    assert behind is not None
    with pytest.raises(UserError, match="no token for one of 'acl'"):
        held.mask(behind)
