"""A language model whole on one device: of a run under any strategy, or of a directory that transformers loads."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from zerofit.config.errors import UserError
from zerofit.config.located import located
from zerofit.data.tokenizer import FILES, NEEDED
from zerofit.models.build import build_model
from zerofit.models.cad_mllm import CadMllm
from zerofit.models.config import config_of
from zerofit.models.placement import WholePlacement
from zerofit.models.pretrained import INDEX, safetensors_in, weight_files
from zerofit.models.trained import TrainedModel, set_buffer
from zerofit.models.whole import all_weights, at_hand, describe_model
from zerofit.plan.spec import RunSpec
from zerofit.train.engine import WEIGHTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FIELD = "zerofit eval"


def find_model(name: str) -> Path:
    """The directory of a model: a local one, or the hub's, downloaded. Raises UserError where it has no safetensors."""
    directory = located(name, FIELD, [*FILES, "*.safetensors", INDEX])
    assert directory is not None, "online it is there, or an error"
    directory = directory.absolute()
    if not (directory / "config.json").is_file():
        merge = "; it holds adapters alone: merge them first" if (directory / "adapter_config.json").is_file() else ""
        raise UserError(f"{FIELD}: {name} is neither a run nor a model: it has no run.json and no config.json{merge}")
    try:
        config = config_of(directory)
    except UserError as error:
        raise UserError(str(error).replace("model.pretrained", FIELD)) from None  # there is no such field here
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(
            f"{FIELD}: {name} holds a {config.model_type}, which is no decoder language model such as qwen3"
        )
    if not any((directory / one).is_file() for one in NEEDED):
        raise UserError(
            f"{FIELD}: {directory} has no tokenizer ({', '.join(NEEDED)}): put its files beside the weights"
        )
    weight_files(directory, FIELD)
    return directory


def load_run(spec: RunSpec, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a run's checkpoint, adapters merged. Besides it a process holds one tensor at a time.

    Over weights in 4 bits adapters stay beside them: that is what they were trained on.
    Raises UserError where the checkpoint, or what its frozen weights come from, is not what it was.
    """
    if spec.quantised:
        return as_trained(spec, checkpoint, device, dtype).family
    described = describe_model(spec)
    model = deepcopy(described.plain)
    WholePlacement(device, dtype).shard(model)
    for name, buffer in described.plain.named_buffers():
        set_buffer(model, name, buffer.to(device))
    places = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, read in all_weights(described, safetensors_in(checkpoint, str(checkpoint)), checkpoint, merged=True):
            places[name].copy_(read())
    return model.requires_grad_(False).eval().family


def load_cad(spec: RunSpec, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> CadMllm:
    """A CAD-MLLM of a run's checkpoint, with adapters beside its weights as in training. Raises UserError."""
    model = as_trained(at_hand(spec), checkpoint, device, dtype)
    assert isinstance(model, CadMllm)
    return model


def as_trained(spec: RunSpec, checkpoint: Path, device: torch.device, dtype: torch.dtype) -> TrainedModel:
    """The whole model, built as training builds it, to be looked at alone. Raises UserError."""
    strategy = spec.strategy.model_copy(update={"compile": False, "activation_checkpointing": "none"})
    model = build_model(
        spec.model_copy(update={"strategy": strategy}),
        WholePlacement(device, dtype),
        dtype,
        weights=checkpoint / WEIGHTS,
    )
    return model.requires_grad_(False).eval()


def load_model(
    directory: Path, device: torch.device, dtype: torch.dtype, quantize: Literal["nf4"] | None = None
) -> PreTrainedModel:
    """The causal language model that transformers finds in a directory: safetensors alone, and no code of theirs.

    With `quantize` the weights of its linear layers, the LM head apart, are held in 4 bits, by bitsandbytes. Raises
    UserError where there is none, or weights are missing.
    """
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    weight_files(directory, FIELD)
    found: Any  # two values, which its types do not say
    silent = not is_progress_bar_enabled()
    disable_progress_bar()  # ours is the one to look at
    try:
        found = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            device_map={"": device},
            quantization_config=None
            if quantize is None
            else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantize, bnb_4bit_compute_dtype=dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, RuntimeError, ImportError, KeyError) as error:
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300]
        raise UserError(f"{FIELD}: {directory} cannot be loaded as a causal language model: {reason}") from None
    finally:
        if not silent:
            enable_progress_bar()
    model, about = found
    missing = sorted(about["missing_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(f"{FIELD}: {directory} lacks weights of {type(model).__name__}: {', '.join(missing[:3])}{more}")
    loaded: PreTrainedModel = model.requires_grad_(False).eval()
    return loaded
