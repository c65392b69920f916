"""Evaluation on real problems, of real rollouts, and of a model that was really trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from stories import DATA, save_stories

from zerofit.config.grpo import Sampling
from zerofit.data.byte_tokenizer import byte_tokenizer
from zerofit.evaluate import reasoning
from zerofit.evaluate.loading import find_model, load_model
from zerofit.evaluate.merging import check_against, compared
from zerofit.evaluate.parts import write_prompts
from zerofit.evaluate.problems import digest, majority_baseline, read_problems
from zerofit.evaluate.prompts import make_prompts
from zerofit.evaluate.request import NAME, Model, Request, Settings
from zerofit.generate.completion import Completion
from zerofit.generate.generator import make_generator
from zerofit.launch.rundir import write_json
from zerofit.measure.rollouts import read_rollouts
from zerofit.plan.hardware import cpu

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the repository")]
MATH = DATA / "math"
SETS = {
    "gsm8k/test_first660.jsonl": (660, "#### "),
    "math500/math500_shared350.jsonl": (350, "answer"),
    "aime24/test.jsonl": (30, "answer"),
    "amc23/test.jsonl": (40, "answer"),
    "svamp/test.jsonl": (1000, "Answer"),
    "orz_format/aime2024.json": (30, "final_answer"),
}


@pytest.mark.parametrize("name", SETS)
def test_real_sets_are_problems_with_answers(name: str) -> None:
    found = read_problems([str(MATH / name)], {}, None, None)
    print(f"\n{name}: {len(found)}; the commonest answer: {100 * majority_baseline([one.gold for one in found]):.1f} %")
    assert len(found) == SETS[name][0]
    assert len({one.name for one in found}) == len(found)
    assert all(one.example.prompt[-1].role == "user" and one.gold.strip() for one in found)
    assert not any("####" in message.content for one in found for message in one.example.prompt)


MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


@pytest.fixture
def group(tmp_path: Path) -> Any:
    """A world of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_real_rollouts_come_to_what_their_authors_counted(
    tmp_path: Path, group: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solutions that four models wrote, in place of what a model would: by each alone, and as four samples."""
    problems = read_problems([str(MATH / "gsm8k" / "test_first660.jsonl")], {}, None, None)
    text = (MATH / "gsm8k" / "example_model_solutions_first660.jsonl").read_text()
    solved = [json.loads(line) for line in text.splitlines()]
    tokenizer = byte_tokenizer()
    prompts = make_prompts(problems, tokenizer)
    asked = {tuple(prompt.tokens): number for number, prompt in enumerate(prompts)}

    def evaluated(name: str, models: Sequence[str], per_part: int) -> Path:
        def generate(_: Any, prompts: Any, seeds: Any, sampling: Any, progress: Callable[[int], None]) -> Any:
            found = []
            for place, prompt in enumerate(prompts):
                said = solved[asked[tuple(prompt)]][models[place % len(models)]]["solution"]
                tokens = [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
                found.append(Completion(tokens, [0.0] * len(tokens), stopped=True))
            progress(len(found))
            return found

        monkeypatch.setattr(reasoning, "make_generator", lambda *_: generate)
        monkeypatch.setattr(reasoning, "tokenizer_for", lambda _: tokenizer)
        monkeypatch.setattr(reasoning, "_load", lambda *_: None)
        settings = Settings(
            model=Model(name=name, run=None, weights=tmp_path, fingerprint="", template=None),
            problems=digest(problems),
            prompts="",
            k=(1, len(models)),
            samples=len(models),
            sampling=Sampling(),
            seed=0,
            engine="graph",
            dtype="fp32",
            quantize=None,
            pad=0,
            stops=(tokenizer.eos_token_id,),
        )
        common: dict[str, Any] = {"data": "gsm8k", "batch": 1, "against": None, "hardware": cpu(), "ranks": 1}
        request = Request(settings=settings, count=len(problems), per_part=per_part, **common)
        directory = tmp_path / name
        directory.mkdir()
        write_prompts(directory, prompts)
        write_json(directory / NAME, request.model_dump(mode="json"))
        reasoning.evaluate(directory)
        return directory

    all_four = json.loads((evaluated("four", MODELS, 100) / "evaluation.json").read_text())["figures"]
    right = {model: sum(row[model]["is_correct"] for row in solved) / len(solved) for model in MODELS}
    assert all_four["pass@1"]["value"] == pytest.approx(sum(right.values()) / 4, abs=0.005)
    any_right = sum(any(row[model]["is_correct"] for model in MODELS) for row in solved) / len(solved)
    assert all_four["pass@4"]["value"] == pytest.approx(any_right, abs=0.005)
    small, large = (evaluated(model, [model], 660) for model in ("6b_finetuning", "175b_verification"))
    check_against(small, digest(problems))
    found = compared(read_rollouts(large / "rollouts.parquet"), small)
    print(f"\n{right}\n{all_four}\n{found}")
    gain = right["175b_verification"] - right["6b_finetuning"]
    assert found["difference"]["value"] == pytest.approx(gain, abs=0.01)
    assert found["difference"]["low"] > 0.2
    assert found["p_value"] < 1e-9


STORY = (
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. "
    "She wanted to play with it, but it was too high."
)
"""What llama2.c's own notes on stories260K say that it writes greedily after `Once upon a time`."""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stories(tmp_path_factory.mktemp("stories") / "stories260K")


@pytest.mark.parametrize("engine", ["graph", "hf"])
def test_a_trained_model_writes_what_it_is_known_to_write(engine: Any, stories: Path) -> None:
    from transformers import AutoTokenizer

    device = torch.device("cpu")
    model = load_model(find_model(str(stories)), device, torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(stories)
    prompts = [tokenizer(f"<s>{text}", add_special_tokens=False)["input_ids"] for text in ("Once upon a time", "Lily")]
    sampling = Sampling(temperature=0, max_tokens=100)
    generate = make_generator(engine, device, 0, (tokenizer.eos_token_id,), None)
    completions = generate(model, prompts, [0, 0], sampling)
    texts = [str(tokenizer.decode(one.tokens)) for one in completions]
    print(f"\n{texts[0]}\n{texts[1]}")
    assert texts[0].startswith(STORY)
