"""A checkpoint's model as one directory of safetensors, whole and without adapters, that `init_from` reads.

DIR/model.safetensors (above 5 GB: shards and an index), DIR/config.json of the backbone, and DIR/export.json, which
says what it was made from. It is there whole or not at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError

from zerofit.checkpoint.manifest import step_of, write_json
from zerofit.config.errors import UserError
from zerofit.models.adapters import merge_adapters
from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.spec import RunSpec, origin_of
from zerofit.plan.versions import versions
from zerofit.train.engine import WEIGHTS

SHARD = "5GB"


def export(spec: RunSpec, checkpoint: Path, directory: Path) -> int:
    """Write the model of `checkpoint` to `directory`, new or empty (`launch.export` checks it); returns its bytes.

    The model is built whole in the host's memory, in float32, and adapters are merged in float32. Raises UserError.
    """
    cpu = torch.device("cpu")
    model = build_model(_plain(spec), WholePlacement(cpu, torch.float32), torch.float32, checkpoint / WEIGHTS)
    weights = merge_adapters(model)
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an export that was cut off
    part.mkdir(parents=True)
    try:
        save_torch_state_dict(weights, part, max_shard_size=SHARD)
        model.config.to_json_file(part / "config.json")
        lora = spec.recipe.model.lora
        made = {
            "run": str(spec.run_dir),
            "step": step_of(checkpoint),
            "zerofit": versions()["zerofit"],
            "origin": origin_of(spec),
            "merged": None if lora is None else lora.model_dump(mode="json"),
        }
        write_json(part / "export.json", made)
        part.replace(directory)
    except SafetensorError as error:
        raise UserError(f"{directory} cannot be written: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sum(value.numel() * value.element_size() for value in weights.values())


def _plain(spec: RunSpec) -> RunSpec:
    """The run's model with whatever attention this machine has; its fresh weights are drawn where the run drew them."""
    model = spec.recipe.model.model_copy(update={"attention": "auto"})
    hardware = spec.hardware
    if not torch.cuda.is_available():
        hardware = hardware.model_copy(update={"device": "cpu"})
    recipe = spec.recipe.model_copy(update={"model": model})
    return spec.model_copy(update={"recipe": recipe, "hardware": hardware})
