"""Pretrained weights, read from safetensors files one tensor at a time.

`from_pretrained` would make a whole copy in every process before a strategy could cut it up, and has its own opinion
on ZeRO-3. Here a tensor is read when it is about to be written to the model, and forgotten after.

Names: a published file says `vit.encoder.layer.0.attention.attention.query.weight` or `model.layers.0...` where
transformers' current module says `layers.0.attention.q_proj.weight` or `layers.0...`; some families also split or fuse
tensors. Transformers keeps that knowledge in its conversion mapping, which this module asks with the same calls that
`from_pretrained` makes (`convert_and_load_state_dict_in_model`, alike in 5.17 and 5.23), so both read the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

from zerofit.config.errors import UserError
from zerofit.config.limited import read_limited
from zerofit.config.located import located

STEM = "model"
WHOLE = f"{STEM}.safetensors"
INDEX = f"{STEM}.safetensors.index.json"
FIELD = "model.pretrained"

Reader = Callable[[], Tensor]
"""Reads one stored tensor, to the CPU, in the dtype that it is stored in."""


def locate(name: str, *, weights: bool = True, field: str = FIELD) -> Path:
    """The directory that `field` names: a local one, or the hub's, downloaded (config and safetensors only).

    Without `weights` its config.json alone is downloaded. What looks like a path is never asked of the hub. Raises
    UserError.
    """
    directory = located(name, field, ["config.json", "*.safetensors", INDEX] if weights else ["config.json"])
    assert directory is not None, "online it is there, or an error"
    return directory


def pretrained_weights(backbone: PreTrainedModel, directory: Path) -> Iterator[tuple[str, Tensor]]:
    """(name in `backbone`, value on CPU in the file's dtype) of every parameter and stored buffer that files hold.

    `backbone` may be on the meta device. Tensors that it has no place for (LM head, token embedding, pooler) are not
    read. Raises UserError for missing or broken files.
    """
    yield from translate(backbone, safetensors_in(directory)).weights(backbone)


@dataclass
class Translated:
    """Stored tensors by the names of a backbone."""

    plain: dict[str, Reader]
    """Those that are taken as they are: name in the backbone -> reader."""
    converted: dict[str, WeightConverter]
    """Those that are split or fused, by the first name in the backbone that comes of them."""
    unused: list[str]
    """Stored names that the backbone has no place for."""

    def weights(self, backbone: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
        """(name in `backbone`, value), read one by one."""
        for name, read in self.plain.items():
            yield name, read()
        for first, converter in self.converted.items():
            for name, value in converter.convert(first, model=backbone, config=backbone.config).items():
                yield name, value[0] if isinstance(value, list) else value


def translate(backbone: PreTrainedModel, stored: Mapping[str, Reader]) -> Translated:
    """Find the places in `backbone`, which may be on the meta device, of tensors stored under any of its old names."""
    conversions = get_model_conversion_mapping(backbone)
    renamings = [one for one in conversions if isinstance(one, WeightRenaming)]
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    places, prefix = backbone.state_dict(), backbone.base_model_prefix
    found = Translated({}, {}, [])
    for key in sorted(stored, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, prefix, places)
        if name not in places and key in places:  # already named as we name it
            name, pattern = key, None
        if name not in places:
            found.unused.append(key)
        elif pattern is None:
            found.plain[name] = stored[key]
        else:
            converter = found.converted.setdefault(name, deepcopy(by_pattern[pattern]))
            converter.add_tensor(name, key, pattern, stored[key])  # type: ignore[arg-type]  # called when converted
    return found


def safetensors_in(directory: Path, field: str = FIELD, stem: str = STEM) -> dict[str, Reader]:
    """Readers of the tensors in `directory`'s safetensors files. Raises UserError, which begins with `field`."""
    files = weight_files(directory, field, stem)
    return {key: partial(_read, file, key, field) for key, file in files.items()}


def safetensors_of(file: Path, field: str = FIELD) -> dict[str, Reader]:
    """Readers of the tensors in one safetensors file. Raises UserError, which begins with `field`."""
    try:
        with safe_open(file, framework="pt") as handle:
            keys = list(handle.keys())
    except SafetensorError as error:
        raise UserError(f"{field}: {file} is broken: {error}") from None
    return {key: partial(_read, file, key, field) for key in keys}


def weight_files(directory: Path, field: str = FIELD, stem: str = STEM) -> dict[str, Path]:
    """The file of each stored tensor. Raises UserError where there are no safetensors, or a file is missing.

    `stem` is how the files' names begin.
    """
    whole, index = directory / f"{stem}.safetensors", directory / f"{stem}.safetensors.index.json"
    if whole.is_file():
        return dict.fromkeys(safetensors_of(whole, field), whole)
    if index.is_file():
        try:
            shards: dict[str, str] = json.loads(read_limited(index))["weight_map"]
            files = {key: directory / Path(shard).name for key, shard in shards.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{field}: {index} is no index of safetensors files") from None
        for missing in sorted({file for file in files.values() if not file.is_file()}):
            raise UserError(f"{field}: {missing} is missing, which {index.name} names")
        return files
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern))
    if pickles:
        raise UserError(
            f"{field}: {directory} has its weights in {pickles[0]}, a pickle, which is not opened; save the "
            "model again with save_pretrained, which writes safetensors"
        )
    raise UserError(f"{field}: {directory} holds neither {whole.name} nor {index.name}")


def _read(file: Path, key: str, field: str) -> Tensor:
    try:
        with safe_open(file, framework="pt") as handle:
            value: Tensor = handle.get_tensor(key)
            return value
    except SafetensorError as error:
        raise UserError(f"{field}: {file}: {key}: {error}") from None
