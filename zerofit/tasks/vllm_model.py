"""A directory from which vLLM, in the ranks' own processes, loads the model that is trained.

TRL has it load `model.name_or_path`, which is empty for a model that was built from a recipe; and of a directory of the
user's vLLM would take the stop tokens. All weights are handed over anew before the first completions are made, so those
that lie there are loaded once and never used.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch.distributed as dist
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig, PreTrainedTokenizerBase

from zerofit.checkpoint.stream import Shards
from zerofit.models.trained import TrainedModel
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import Engine


@contextmanager
def loadable(spec: RunSpec, engine: Engine, model: TrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Within, `model` has a path that vLLM loads; in the run's directory, which all ranks see. Collective."""
    directory = spec.run_dir / "vllm"
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(directory, ignore_errors=True)  # of a start that came to nothing
        directory.mkdir(parents=True)
    with engine.rollout(model) as whole:
        if first:
            weights = dict(whole.named_parameters())
            with Shards(directory, "model", weights) as shards:
                for name, weight in weights.items():
                    # A copy: NumPy's view of memory that FSDP2 has gathered would keep it from being freed.
                    shards.write(name, weight.detach().to("cpu", engine.compute_dtype, copy=True))
                shards.close()
    if first:
        config = deepcopy(model.config)
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]  # FSDP2 has renamed the model's own class
        config.architectures, config.dtype = [kind.__name__], engine.compute_dtype
        config.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
        GenerationConfig(pad_token_id=spec.text.pad, eos_token_id=list(spec.text.stops)).save_pretrained(directory)
    dist.barrier()
    model.family.name_or_path = str(directory)
    yield
    dist.barrier()
    if first:
        shutil.rmtree(directory)
