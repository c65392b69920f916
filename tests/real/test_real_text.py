"""Real tokenizers, real chat templates and real dialogues: what is learnt is what the assistant says, no more."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from zerofit.config.errors import UserError
from zerofit.config.schema import Recipe
from zerofit.data.chat import Chat
from zerofit.data.samples import open_prompts, open_samples
from zerofit.data.text import describe
from zerofit.data.text_rows import TextRow, rows
from zerofit.data.tokenizer import load_tokenizer
from zerofit.prepare.sources import find

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository")]
MINIMIND = str(DATA / "tokenizers" / "minimind")
DIALOGUES = str(DATA / "cot" / "reason_tool_use_demo_50.jsonl")
GSM8K = str(DATA / "math" / "gsm8k" / "train.jsonl")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROFIT_CACHE", str(tmp_path / "cache"))


def recipe(task: str = "sft", *, tokenizer: str = MINIMIND, template: str | None = None, **data: Any) -> Recipe:
    shape = {"model_type": "qwen3", "hidden_size": 32}
    fields: dict[str, Any] = {
        "task": task,
        "model": {"kind": "causal_lm", "shape": shape, "tokenizer": tokenizer, "chat_template": template},
        "data": {"source": "rows"} | data,
        "train": {"max_steps": 1, "micro_batch": 1, "global_batch": 1},
        "optimizer": {"lr": 1e-3},
    }
    return Recipe.model_validate(fields | ({"grpo": {"rewards": ["math_correct"]}} if task == "grpo" else {}))


def published(name: str) -> str:
    """A chat template as its model was published with, from TRL."""
    return str(files("trl").joinpath("chat_templates", f"{name}.jinja"))


def dialogues() -> list[TextRow]:
    found = [row for row in rows(find([DIALOGUES])[0], None) if row is not None]
    assert len(found) == 50
    return found


def squeezed(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (None, "<|im_end|>"),  # minimind's own, which has no marks and which TRL does not know
        ("chatml", "<|im_end|>"),
        ("r1", "<|im_end|>"),
        ("qwen3", "<|im_end|>"),
        ("qwen3_8", "<|im_end|>"),
        ("qwen2_5", "<|im_end|>"),
        ("deepseek_r1_distill", "<｜end▁of▁sentence｜>"),
        ("llama3_1", "<|eot_id|>"),
    ],
)
def test_of_real_dialogues_all_that_assistants_say_is_learnt_with_thoughts_and_ends(
    template: str | None, end: str
) -> None:
    """To white space and empty thoughts, which templates have their own ways with, and what they write behind tools."""
    named = template if template in (None, "chatml", "r1") else published(str(template))
    chat = Chat(load_tokenizer(recipe(template=named, path=DIALOGUES)))
    for row in dialogues():
        (found,) = chat.encode([row.example], [row.where])
        learnt = squeezed(str(chat.tokenizer.decode(found.tokens[found.learnt])))
        for own in ("<think></think>", "<｜tool▁outputs▁end｜>"):
            learnt = learnt.replace(own, "")
        said = [squeezed(one.content) for one in row.example.messages if one.role == "assistant"]
        assert learnt.removesuffix("<|im_end|>" if end != "<|im_end|>" else "") == "".join(one + end for one in said)
        assert "</think>" in learnt


def test_a_template_that_drops_thoughts_is_refused_for_dialogues_that_have_them() -> None:
    with pytest.raises(UserError, match=r"reason_tool_use_demo_50.jsonl:1: the chat template of .* leaves out what"):
        describe(recipe(template=published("deepseekv3"), path=DIALOGUES, validation=0.1, max_length=8192))
    with pytest.raises(UserError, match="refuses it: System role not supported; name another one"):
        describe(recipe(template=published("gemma"), path=DIALOGUES, validation=0.1, max_length=8192))


@pytest.mark.thorough
def test_gsm8k_is_cut_and_packed_whole() -> None:
    facts = describe(recipe(path=GSM8K, validation=0.02, packing=True, max_length=1024))
    assert (facts.rows, facts.left_out, facts.stops, facts.vocabulary) == (7324, 0, (2,), 6400)
    assert facts.train < 1.02 * facts.tokens / 1024
    tokenizer = load_tokenizer(recipe(path=GSM8K))
    questions = {row.example.prompt[0].content for row in rows(find([GSM8K])[0], None) if row is not None}
    text = [tokenizer.decode(one.tokens) for part in ("train", "validation") for one in open_samples(facts, part)]  # type: ignore[arg-type]
    asked = {piece.partition("<|im_end|>")[0] for one in text for piece in one.split("<|im_start|>user\n")[1:]}
    assert asked == questions


@pytest.mark.thorough
def test_every_kind_of_mathematics_gives_prompts_with_answers() -> None:
    facts = describe(recipe("grpo", path=str(DATA / "math"), validation=0.01, max_length=512))
    prompts = open_prompts(facts, "train")
    assert facts.train + facts.left_out == 18692 - 187
    assert facts.left_out < 200
    assert all(one.row["answer"] for one in prompts)
    assert {one.where.partition("/")[0] for one in prompts} == {
        "aime24", "aime_1983_2023", "amc23", "gsm8k", "math500", "math_train", "orz_format", "svamp"
    }  # fmt: skip
    assert max(len(one.tokens) for one in prompts) <= 512


def test_rollouts_of_a_reasoning_model_are_documents() -> None:
    file = str(DATA / "cot" / "datawhale_r1_countdown_3b_success.txt")
    facts = describe(recipe(source="documents", path=file, validation=0.01, packing=True, max_length=2048))
    assert (facts.rows, facts.left_out) == (1724, 0)
    assert facts.targets >= facts.tokens - 2 * facts.rows


def test_tokenizers_that_lack_something_say_what(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='gpt2 has no pad token; name one .*"pad_token": "<|endoftext|>"'):
        load_tokenizer(recipe(tokenizer=str(DATA / "tokenizers" / "gpt2"), path=GSM8K))
    with pytest.raises(UserError, match="qwen1 holds no tokenizer"):
        load_tokenizer(recipe(tokenizer=str(DATA / "tokenizers" / "qwen1"), path=GSM8K))
    with pytest.raises(UserError, match=r"tiny_llama_hf cannot be read|tiny_llama_hf has no"):
        load_tokenizer(recipe(tokenizer=str(DATA / "checkpoints" / "tiny_llama_hf"), path=GSM8K))
    shutil.copytree(DATA / "tokenizers" / "gpt2", tmp_path / "gpt2")
    file = tmp_path / "gpt2" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": "<|endoftext|>"}))
    with pytest.raises(UserError, match="gpt2 has no chat template; name one, for example chatml"):
        describe(recipe(tokenizer=str(tmp_path / "gpt2"), path=GSM8K, validation=0.1))
    facts = describe(recipe(tokenizer=str(tmp_path / "gpt2"), template="chatml", path=GSM8K, validation=0.1, limit=50))
    assert (facts.train, facts.vocabulary, facts.pad, facts.stops) == (50, 50257, 50256, (50256,))
    assert all(one.tokens[-1] == 50256 and one.learnt[-1] for one in open_samples(facts, "train"))  # it learns to stop
