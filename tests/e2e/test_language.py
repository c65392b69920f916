"""Language work as a user meets it: train, and what an export of it is to transformers and peft, without us."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from cli_runs import environment, refused, result, steps, tiny, zerofit
from language_runs import GRPO, SFT

LORA = "model.lora={rank: 4, alpha: 16}"
LOADS = """\
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
merged, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval(), AutoTokenizer.from_pretrained(sys.argv[1])
assert merged.generation_config.eos_token_id == [tokenizer.eos_token_id]
turns = [{"role": "user", "content": "2 + 2?"}]
text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
from peft import PeftModel
adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[2]), sys.argv[3]).eval()
with torch.no_grad():
    logits, others = merged(ids).logits, adapted(ids).logits
    plain = AutoModelForCausalLM.from_pretrained(sys.argv[2]).eval()(ids).logits
assert torch.allclose(logits, others, atol=1e-5), (logits - others).abs().max()
assert not torch.allclose(logits, plain, atol=1e-3)
assert not any(name.startswith("zerofit") for name in sys.modules)
assert merged.generate(ids, max_new_tokens=3, do_sample=False).shape[1] > ids.shape[1]
print("loaded")
"""


def train(directory: Path, name: str, text: str, *overrides: str) -> Path:
    """A run of that name."""
    done = zerofit("train", str(tiny(directory, text)), f"run_dir=runs/{name}", *overrides, cwd=directory)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return directory / "runs" / name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("language")
    return train(directory, "words", SFT, LORA, "strategy=zero3")


@pytest.mark.thorough
def test_what_an_export_is_to_others(run: Path) -> None:
    directory = run.parents[1]
    still = ("train.max_steps=1", "optimizer.lr=1e-12", "optimizer.weight_decay=0", "--nproc", "1")
    base = train(directory, "base", SFT, *still)  # the weights that LoRA began with
    for source, words in ((run, ("--to", "hf", "--merge-lora")), (run, ("--to", "peft")), (base, ("--to", "hf"))):
        done = zerofit("convert", str(source), *words, "--output", f"{source.name}-{words[1]}", cwd=directory)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (directory / f"{run.name}-peft").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "export.json",
    ]
    words = [sys.executable, "-c", LOADS, f"{run.name}-hf", "base-hf", f"{run.name}-peft"]
    done_loading = subprocess.run(
        words, cwd=directory, env=environment(PYTHONPATH=""), capture_output=True, text=True, timeout=200, check=False
    )
    assert done_loading.stdout == "loaded\n", done_loading.stderr


def test_a_run_learns_from_rewards_after_a_run_on_text(run: Path) -> None:
    directory = run.parents[1]
    done = zerofit("export", str(run), "begun", cwd=directory)
    assert done.returncode == 0, done.stderr
    assert (directory / "begun" / "tokenizer.json").is_file()
    overrides = ("init_from=begun", "strategy=fsdp2", "evaluate.every_steps=2")
    worth = train(directory, "worth", GRPO, *overrides)
    figures = steps(worth)
    assert {"reward", "reward/math_correct", "reward/think_format", "completion_length", "clipped"} <= figures[0].keys()
    assert result(worth)["test"].keys() >= {"reward", "pass@1", "completion_length", "split", "problems"}
    lines = (worth / "metrics.jsonl").read_text().splitlines()
    validations = [line for line in map(json.loads, lines) if "val_reward" in line]
    assert [line["step"] for line in validations] == [0, 2, 4]
    kept = pq.read_table(worth / "completions.parquet")
    assert set(kept.column("step").to_pylist()) == {1, 2, 3, 4}
    assert set(kept.column_names) >= {"prompt", "completion", "answer", "reward", "advantage", "tokens", "stopped"}


@pytest.mark.parametrize(
    ("text", "override", "words"),
    [
        (SFT, "model={kind: vit, shape: vit-tiny}", "kind vit is no model for the task sft, which takes causal_lm"),
        (SFT, "data={source: digits}", "source digits is nothing for the task sft, which takes arithmetic"),
        (SFT, "model.shape.vocab_size=100", "needs 259"),
        (SFT, "data.max_length=20", "data.max_length"),
        (SFT, "model.quantize=nf4", "quantize nf4: weights in 4 bits cannot be trained; give lora too"),
        (GRPO, "grpo.rewards=[mth_correct]", "did you mean math_correct?"),
        (GRPO, "grpo.rewards=[nowhere:worth]", "cannot import nowhere"),
        (GRPO, "grpo.num_generations=3", "num_generations=4"),
        (GRPO, "grpo.sampling.max_tokens=1000", "grpo.sampling.max_tokens"),
        (GRPO, "grpo=null", "the task grpo needs the section grpo"),
        (SFT, "evaluate.best_metric=top1", "top1 is no figure of the task sft; loss, token_accuracy"),
    ],
)
def test_mistakes_are_answered_in_one_line(tmp_path: Path, text: str, override: str, words: str) -> None:
    refused(zerofit("train", str(tiny(tmp_path, text)), override, cwd=tmp_path), words)
