"""`zerofit eval` of a language model, whole commands: cut off and gone on with, on any ranks; compared; refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Zygote
from language_models import save_model, save_problems

from zerofit.measure.rollouts import read_rollouts

COUNT, SAMPLES = 40, 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model and problems."""
    cwd = tmp_path_factory.mktemp("place")
    save_model(cwd / "model")
    save_problems(cwd / "problems.jsonl", COUNT)
    return cwd


WORDS = ("eval", "model", "--data", "problems.jsonl", "--k", f"1,{SAMPLES}", "--max-tokens", "96", "--seed", "3")


@pytest.fixture(scope="module")
def whole(place: Path, zygote: Zygote) -> Path:
    """An evaluation that nothing happened to, on one rank."""
    command = zygote.run(*WORDS, "--nproc", 1, "--output", "whole", cwd=place)
    assert command.code == 0, command.said
    return place / "whole"


def test_the_result_is_all_there(whole: Path) -> None:
    result = json.loads((whole / "evaluation.json").read_text())
    rows = read_rollouts(whole / "rollouts.parquet")
    assert (result["format"], result["k"], result["samples"], result["seed"]) == (1, [1, SAMPLES], SAMPLES, 3)
    assert result["sampling"] == {"temperature": 0.7, "top_p": 1.0, "top_k": 0, "max_tokens": 96}
    assert result["figures"]["problems"] * SAMPLES == len(rows) == COUNT * SAMPLES
    assert {"pass@1", f"pass@{SAMPLES}", f"maj@{SAMPLES}", "answered", "truncated"} <= result["figures"].keys()
    assert [row.problem for row in rows[::SAMPLES]] == [f"problems.jsonl:{line + 1}" for line in range(COUNT)]
    golds = [row.gold for row in rows[::SAMPLES]]
    assert result["majority_baseline"] == max(map(golds.count, golds)) / COUNT
    assert result["compared_with"] is None
    assert result["tokens_s"] > 0
    assert rows[0].prompt.startswith("<|im_start|>user\n")
    assert rows[0].prompt.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert len({row.completion for row in rows}) > COUNT  # samples differ
    assert all(row.tokens <= 96 for row in rows)
    assert all(row.tokens == 96 for row in rows if not row.stopped)
    assert not (whole / "parts").exists()


def test_killed_and_gone_on_with_on_other_ranks_the_rows_are_the_same(place: Path, whole: Path, zygote: Zygote) -> None:
    parts = place / "evaluations" / "model-1" / "parts"
    with zygote.start(*WORDS, "--nproc", 2, cwd=place) as command:
        command.await_(lambda: len(list(parts.glob("*.parquet"))) > 0)
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
    left = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert 0 < len(left) < 8
    damaged = max(left)
    damaged.write_bytes(damaged.read_bytes()[:100])
    command = zygote.start(*WORDS, "--nproc", 2, cwd=place)
    with command:
        command.await_(lambda: len(list(parts.glob("*.parquet"))) > len(left))
        os.kill(command.pid, signal.SIGTERM)
        assert command.wait() == 4, command.said
    assert "interrupted; go on with: zerofit eval model --data problems.jsonl --k 1,4" in command.stderr
    assert f"goes on: {len(left)} of 8 parts are done" in command.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in left.items() if path != damaged)
    again = place / "evaluations" / "model-1"
    elsewhere = [word if word not in ("model", "problems.jsonl") else f"../{word}" for word in WORDS]
    command = zygote.run(*elsewhere, "--nproc", 1, "--output", "model-1", cwd=place / "evaluations")
    assert command.code == 0, command.said
    assert (again / "rollouts.parquet").read_bytes() == (whole / "rollouts.parquet").read_bytes()
    assert json.loads((again / "result.json").read_text())["exit"] == "finished"


def test_parts_under_other_settings_are_not_mixed(place: Path, whole: Path, zygote: Zygote) -> None:
    cut = place / "cut"
    shutil.copytree(whole, cut)
    (cut / "evaluation.json").unlink()
    other = zygote.run(*WORDS[:-1], 4, "--output", "cut", cwd=place)
    assert "under other settings (seed), which was cut off" in other.refused()
    assert "holds a finished evaluation" in zygote.run(*WORDS, "--output", "whole", cwd=place).refused()


def test_two_models_are_compared_on_the_same_problems(place: Path, whole: Path, zygote: Zygote) -> None:
    save_model(place / "second", seed=1)
    words = ("eval", "second", "--data", "problems.jsonl", "--max-tokens", 16, "--engine", "hf")
    command = zygote.run(*words, "--against", "whole", "--output", "compared", cwd=place)
    assert command.code == 0, command.said
    result = json.loads((place / "compared" / "evaluation.json").read_text())
    found, sampling = result["compared_with"], result["sampling"]
    assert (sampling["temperature"], result["samples"]) == (0.0, 1)
    assert found["model"] == "model"
    assert 0 <= found["p_value"] <= 1
    assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]
    gain = result["figures"]["pass@1"]["value"] - found["pass@1"]["value"]
    assert found["difference"]["value"] == pytest.approx(gain, abs=1e-9)
    assert "McNemar" in command.stdout
    fewer = zygote.run(*words, "--against", "whole", "--limit", 5, cwd=place)
    assert "--against whole: is an evaluation of other problems (problems.jsonl)" in fewer.refused()


def test_what_is_wrong_is_said_in_a_line(place: Path, zygote: Zygote, tmp_path: Path) -> None:
    for name in ("plain", "pickle"):
        shutil.copytree(place / "model", tmp_path / name)
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    os.rename(tmp_path / "pickle" / "model.safetensors", tmp_path / "pickle" / "pytorch_model.bin")
    for name, change in {
        "strange": {"model_type": "strange", "auto_map": {"AutoModelForCausalLM": "strange.Strange"}},
        "vision": {"model_type": "vit"},
    }.items():
        shutil.copytree(place / "model", tmp_path / name)
        config = json.loads((place / "model" / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "strange" / "strange.py").write_text("raise SystemExit('ran')")
    (tmp_path / "empty").mkdir()
    shutil.copytree(place / "model", tmp_path / "model")
    save_problems(tmp_path / "problems.jsonl", 3)
    (tmp_path / "unanswered.jsonl").write_text('{"messages": [{"role": "user", "content": "Why?"}]}\n')
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "long.jsonl").write_text(json.dumps({"question": "?" * 600, "answer": "1"}) + "\n")
    data = ("--data", "problems.jsonl")
    for words, reason in {
        ("model", "--data", "absent.jsonl"): "absent.jsonl does not exist",
        ("model",): "--data: name problems with answers",
        ("absent/model", *data): "absent/model",
        ("empty", *data): "empty is neither a run nor a model: it has no run.json and no config.json",
        ("model", "--data", "unanswered.jsonl"): "unanswered.jsonl:1: ",
        ("model", "--data", "none.jsonl"): "there is no row in none.jsonl",
        ("model", "--data", "long.jsonl"): "long.jsonl:1: its prompt of ",
        (
            "model",
            *data,
            "--k",
            "1,8",
            "--samples",
            4,
        ): "--k 8 needs as many samples of each problem, and --samples is 4",
        ("model", *data, "--k", "a"): "--k a: takes whole numbers",
        ("model", *data, "--k", "2", "--temperature", 0): "--temperature 0 writes the same each time",
        ("model", *data, "--top-p", 2): "--top-p 2: is a probability",
        ("model", *data, "--engine", "grahp"): "--engine grahp is none of graph, hf",
        ("model", *data, "--dtype", "fp16"): "--dtype fp16 needs a GPU",
        ("model", *data, "--max-tokens", 600): "fit into the model's context of 512: use --max-tokens",
        ("model", *data, "--checkpoint", 5): "--checkpoint 5: model is no run",
        ("model", *data, "--against", "empty"): "empty is no evaluation of a language model: it has no evaluation.json",
        ("model", *data, "--template", "chatlm"): "chatlm",
        ("strange", *data): "model_type 'strange' is not known to transformers (code that lies beside",
        ("vision", *data): "vision holds a vit, which is no decoder language model",
        ("plain", *data): "the tokenizer of plain has no chat template: name one with --template",
        ("pickle", *data): "has its weights in pytorch_model.bin, a pickle, which is not opened",
    }.items():
        said = zygote.run("eval", *words, cwd=tmp_path).refused()
        assert reason in said, (words, said)
    assert not (tmp_path / "evaluations").exists()


def test_weights_that_are_missing_are_named(place: Path, zygote: Zygote, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(place / "model", tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    words = ("eval", "model", "--data", place / "problems.jsonl", "--max-tokens", 4, "--nproc", 1)
    assert (
        "lacks weights of Qwen3ForCausalLM: model.layers.1.mlp.up_proj.weight"
        in zygote.run(*words, cwd=tmp_path).refused()
    )


def test_columns_are_those_that_readers_expect(whole: Path) -> None:
    names = ["problem", "prompt", "completion", "gold", "answer", "correct", "tokens", "stopped"]
    assert pq.read_schema(whole / "rollouts.parquet").names == names
