"""Safetensors files written as tensors come: the library reads the same, in little memory, and damage is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from zerofit.checkpoint.headers import read_header
from zerofit.checkpoint.stream import NAMES, Shards, read_back
from zerofit.config.errors import UserError
from zerofit.models.pretrained import safetensors_in
from zerofit.models.zero_files import Spread

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter("__metadata__".__ne__)
shapes = st.lists(st.integers(0, 4), max_size=5)
tensors = st.dictionaries(names, st.tuples(st.sampled_from(sorted(NAMES, key=str)), shapes), max_size=6)


def made(kind: torch.dtype, shape: list[int]) -> Tensor:
    """Any bytes that the dtype can have."""
    whole = torch.randint(2 if kind == torch.bool else 256, (torch.Size(shape).numel() * kind.itemsize,))
    return whole.to(torch.uint8).view(kind).view(shape)


def same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, NaNs too."""
    bits = [value.contiguous().flatten().view(torch.uint8) for value in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


def in_pieces(value: Tensor, count: int) -> Spread:
    """The same, from `count` places, the last one padded."""
    padded = torch.cat([value.flatten(), value.new_zeros(3)])
    return Spread(partial(padded.chunk, count), value.shape)


@given(asked=tensors, limit=st.integers(1, 400), pieces=st.integers(0, 4))
def test_the_library_reads_what_was_written(
    asked: dict[str, tuple[torch.dtype, list[int]]],
    limit: int,
    pieces: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("any")
    values = {name: made(*one) for name, one in asked.items()}
    with Shards(directory, "model", values, limit) as shards:
        for name, value in values.items():
            shards.write(name, in_pieces(value, pieces) if pieces else value)
        written = shards.close()
    read_back(directory, written)
    files = sorted(directory.glob("*.safetensors"))
    found = {name: value for file in files for name, value in load_file(file).items()}
    assert found.keys() == values.keys()
    assert all(same(found[name], value) for name, value in values.items())
    for file in files:
        sizes = [one.data_offsets[1] - one.data_offsets[0] for one in read_header(file).values()]
        assert sum(sizes) <= limit or len([size for size in sizes if size]) == 1
    if len(files) == 1:
        assert files[0].name == "model.safetensors"
    else:
        assert [file.name for file in files] == [
            f"model-{number:05d}-of-{len(files):05d}.safetensors" for number in range(1, len(files) + 1)
        ]
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        assert index["metadata"]["total_size"] == sum(one.nbytes for one in values.values())
        assert safetensors_in(directory).keys() == values.keys()
    assert [path for path in directory.iterdir() if path.name.startswith(".")] == []


def test_it_is_cast_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zerofit.checkpoint.stream.BLOCK", 24)
    value = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    with Shards(tmp_path, "model", ["whole", "turned", "spread"]) as shards:
        shards.write("whole", value, torch.bfloat16)
        shards.write("turned", value.T)
        shards.write("spread", in_pieces(value, 3), torch.float64)
        read_back(tmp_path, shards.close())
    found = load_file(tmp_path / "model.safetensors")
    assert same(found["whole"], value.bfloat16())
    assert same(found["turned"], value.T)
    assert same(found["spread"], value.double())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as handle:
        assert handle.metadata() == {"format": "pt"}  # without it transformers refuses the file


def test_names_of_any_length_and_many_dimensions_have_room(tmp_path: Path) -> None:
    with Shards(tmp_path, "model", ['é"\n' * 99, "deep"]) as shards:
        shards.write('é"\n' * 99, torch.zeros(1))
        shards.write("deep", torch.zeros([1] * 60 + [10, 10, 10, 10]))
        read_back(tmp_path, shards.close())


def test_what_reads_back_otherwise_is_refused(tmp_path: Path) -> None:
    with Shards(tmp_path, "model", ["a", "b"]) as shards:
        shards.write("a", torch.zeros(8))
        shards.write("b", torch.ones(8))
        written = shards.close()
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x01")
    with pytest.raises(UserError, match=r"model.safetensors: b reads back with other contents"):
        read_back(tmp_path, written)


def test_a_tensor_with_too_few_elements_is_refused(tmp_path: Path) -> None:
    short = Spread(lambda: [torch.zeros(8)], torch.Size([3, 4]))
    with (
        pytest.raises(UserError, match=r"lack 4 elements of a tensor of shape \(3, 4\)"),
        Shards(tmp_path, "model", ["a"]) as shards,
    ):
        shards.write("a", short)


MEMORY = """
import json, sys
from functools import partial
from pathlib import Path
import torch
from zerofit.checkpoint import stream, torch_export
from zerofit.checkpoint.canonical import write_canonical
from zerofit.checkpoint.content import Content
from zerofit.models.zero_files import Spread, slices, Flat

directory, form = Path(sys.argv[1]), sys.argv[2]
COUNT, SIZE = 60, 2**19  # tensors of 2 MiB, of which each of two files holds a half
flats = [
    Flat([torch.from_file(str(directory / f"rank-{rank}"), shared=False, size=COUNT * SIZE // 2)]) for rank in (0, 1)
]
half = SIZE // 2
readers = {
    f"block.{n}.weight": Spread(partial(slices, flats, n * half, half), torch.Size([512, 1024])) for n in range(COUNT)
}
readers["large"] = Spread(partial(slices, flats, 0, COUNT * half), torch.Size([COUNT * SIZE]))  # 120 MiB
content = Content("test", [*readers], lambda: iter(readers.items()))

def anonymous():
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024

torch.ones(2**16).to(torch.bfloat16)  # what torch allocates once
before, most, own = anonymous(), 0, stream.blocks

def blocks(value, dtype):
    global most
    for block in own(value, dtype):
        most = max(most, anonymous())
        yield block

stream.blocks = torch_export.blocks = blocks
out = directory / form
if form == "canonical":
    out.mkdir()
    write_canonical(content, out)
else:
    torch_export.write_torch(content, out, torch.bfloat16)
print(json.dumps({"above_mib": (most - before) / 2**20}))
"""


@pytest.mark.parametrize("form", ["canonical", "weights.pth"])
def test_memory_stays_far_below_the_largest_tensor(form: str, tmp_path: Path) -> None:
    """Writing 240 MiB from files: not the 120 of the largest tensor, which lies in 60 pieces."""
    for rank in (0, 1):
        with (tmp_path / f"rank-{rank}").open("wb") as file:
            file.truncate(60 * 2**20)
    words = [sys.executable, "-c", MEMORY, str(tmp_path), form]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    above = json.loads(done.stdout.splitlines()[-1])["above_mib"]
    print("above", above)
    assert 0 < above < 64
