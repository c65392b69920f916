"""How fast the rollout engines generate: one JSON line for each.

    python bench/generate.py --shape qwen3-0.6b --batch 32 --tokens 256 --engines hf graph
    python bench/generate.py --shape qwen3-8b --dtype fp16 --quantize nf4 --batch 4 --tokens 1024
    python bench/generate.py --device cpu --dtype fp32 --shape qwen3-0.6b --batch 2 --prompt 16 --tokens 8

Random weights and prompts, no stop token: every row gets all its tokens. `s` is the median of --repeat calls after one
that is `first_s`; a call takes its whole way, with the cache it allocates and the graphs it captures. `tokens_s` is of
all rows together, prompts not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from zerofit.config.grpo import Sampling
from zerofit.generate.generator import make_generator
from zerofit.models.placement import kept_tied, parameters_on_meta
from zerofit.plan.shapes import SHAPES

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def build(options: argparse.Namespace, device: torch.device) -> PreTrainedModel:
    """The model with random weights, made layer by layer on the device."""
    dtype = DTYPES[options.dtype]
    config = AutoConfig.for_model(**SHAPES[options.shape])
    with no_init_weights(), parameters_on_meta():
        model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=options.attention, dtype=dtype)
    model.eval().requires_grad_(False)
    if options.quantize:
        quantise(model, dtype, device)
    with kept_tied(model):
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta:
                    value = torch.randn(parameter.shape, dtype=dtype, device=device) * 0.02
                    value = torch.ones_like(value) if value.ndim == 1 else value
                    module._parameters[name] = nn.Parameter(value, requires_grad=False)
    buffers: PreTrainedModel = model.to(device)
    return buffers


def quantise(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """nf4 in the place of all linear layers but the head."""
    import bitsandbytes as bnb

    for path, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Linear) or path == "lm_head":
            continue
        kind = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=dtype,
            quant_type="nf4",
            quant_storage=dtype,
        )
        value = torch.randn(layer.weight.shape, dtype=dtype) * 0.02
        kind.weight = bnb.nn.Params4bit(value, requires_grad=False, quant_type="nf4", quant_storage=dtype)
        if layer.bias is not None:
            kind.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype), requires_grad=False)
        owner, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(owner), leaf, kind.to(device))


def measure(model: PreTrainedModel, engine: Any, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Generate some times."""
    drawn = torch.Generator().manual_seed(0)
    prompts = torch.randint(model.config.vocab_size, (options.batch, options.prompt), generator=drawn).tolist()
    sampling = Sampling(temperature=options.temperature, top_p=options.top_p, max_tokens=options.tokens)
    generator = make_generator(engine, device, pad=0, stops=[], batch=None)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(1 + options.repeat):
        started = time.perf_counter()
        found = generator(model, prompts, range(options.batch), sampling)
        times.append(time.perf_counter() - started)  # tokens are on the host: the device is done
    tokens = sum(len(one.tokens) for one in found)
    taken = statistics.median(times[1:])
    return {
        "s": round(taken, 3),
        "first_s": round(times[0], 3),
        "tokens_s": round(tokens / taken, 1),
        "step_ms": round(1000 * taken / options.tokens, 2),
        **({"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3)} if cuda else {}),
    }


def main() -> None:
    """Parse, generate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--shape", default="qwen3-0.6b", choices=sorted(name for name in SHAPES if not name.startswith("vit"))
    )
    parser.add_argument("--dtype", default="bf16", choices=DTYPES)
    parser.add_argument("--quantize", choices=["nf4"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of each completion")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--engines", nargs="+", default=["hf", "graph"], choices=["hf", "graph"])
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu x {torch.get_num_threads()}"
    model = build(options, device)
    shown = {key: value for key, value in vars(options).items() if key not in ("device", "engines", "repeat")}
    for engine in options.engines:
        result = {"engine": engine, **shown, "device": name, **measure(model, engine, options, device)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
