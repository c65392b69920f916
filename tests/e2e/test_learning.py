"""That learning from rewards learns: what is liked becomes frequent, from weights that knew nothing of it."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from cli_runs import environment, steps, tiny, zerofit_process
from language_runs import SHAPE

LIKED = '''\
import re
def letters(completion, row):
    """The share of what was written that is a small letter; the names of special tokens are none."""
    return sum("a" <= one <= "z" for one in re.sub(r"<[|][a-z_]+[|]>", "", completion)) / 8
'''
RECIPE = f"""\
task: grpo
model:
  kind: causal_lm
  tokenizer: bytes
  shape:
{SHAPE}data: {{source: arithmetic, problems: 64, test_problems: 4, max_length: 250}}
train: {{max_steps: 24, micro_batch: 32, global_batch: 64, seed: 1}}
optimizer: {{lr: 1e-2, schedule: constant, warmup: {{steps: 1}}, weight_decay: 0.0}}
strategy: zero2
grpo:
  rewards: ["liked:letters"]
  num_generations: 8
  sampling: {{max_tokens: 8}}
"""


@pytest.mark.thorough
def test_what_is_rewarded_becomes_frequent(tmp_path: Path) -> None:
    (tmp_path / "liked.py").write_text(LIKED)
    environ = environment(PYTHONPATH=str(tmp_path))
    done = zerofit_process("train", str(tiny(tmp_path, RECIPE)), "run_dir=run", cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    rewards = [figures["reward/liked:letters"] for figures in steps(tmp_path / "run")]
    assert len(rewards) == 24
    assert statistics.mean(rewards[:3]) < 0.2
    assert statistics.mean(rewards[-3:]) > 2 * statistics.mean(rewards[:3])
    assert max(rewards) <= 1
