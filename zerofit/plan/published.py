"""Models of the Hugging Face hub whose shape is known here, so that a run of them is planned without asking the hub."""

from __future__ import annotations

_QWEN3 = {
    f"qwen/qwen3-{size}{kind}": f"qwen3-{size}"
    for size in ("0.6b", "1.7b", "4b", "8b", "14b")
    for kind in ("", "-base")
}
_QWEN2_5 = {
    f"qwen/qwen2.5-{size}{kind}": f"qwen2.5-{size}"
    for size in ("0.5b", "1.5b", "3b", "7b", "14b", "32b", "72b")
    for kind in ("", "-instruct")
}
_R1 = {
    f"deepseek-ai/deepseek-r1-distill-qwen-{size}": f"deepseek-r1-distill-qwen-{size}"
    for size in ("1.5b", "7b", "14b", "32b")
}
_LLAMA = {
    f"meta-llama/{name}{kind}": shape
    for name, shape in {
        "meta-llama-3-8b": "llama-3-8b",
        "llama-3.1-8b": "llama-3.1-8b",
        "meta-llama-3.1-8b": "llama-3.1-8b",
        "llama-3.1-70b": "llama-3.1-70b",
        "llama-3.3-70b": "llama-3.1-70b",
        "llama-3.2-1b": "llama-3.2-1b",
        "llama-3.2-3b": "llama-3.2-3b",
    }.items()
    for kind in ("", "-instruct")
}
_VIT = {
    f"google/vit-{size}-patch{patch}-224{kind}": f"vit-{size}"
    for size, patch in (("base", 16), ("large", 16), ("huge", 14))
    for kind in ("", "-in21k")
}

PUBLISHED: dict[str, str] = {
    **_QWEN3,
    "qwen/qwen3-32b": "qwen3-32b",
    **_QWEN2_5,
    **_R1,
    "deepseek-ai/deepseek-r1-distill-llama-8b": "llama-3.1-8b",
    "deepseek-ai/deepseek-r1-distill-llama-70b": "llama-3.1-70b",
    **_LLAMA,
    "mistralai/mistral-7b-v0.1": "mistral-7b-v0.1",
    "mistralai/mistral-7b-v0.3": "mistral-7b",
    "mistralai/mistral-7b-instruct-v0.3": "mistral-7b",
    "mistralai/mistral-nemo-base-2407": "mistral-nemo-12b",
    "mistralai/mistral-nemo-instruct-2407": "mistral-nemo-12b",
    "google/gemma-2-2b": "gemma-2-2b",
    "google/gemma-2-2b-it": "gemma-2-2b",
    "google/gemma-2-9b": "gemma-2-9b",
    "google/gemma-2-9b-it": "gemma-2-9b",
    "openai-community/gpt2": "gpt2",
    "gpt2": "gpt2",
    **_VIT,
    **{f"facebook/dinov2-{size}": f"dinov2-{size}" for size in ("small", "base", "large", "giant")},
}
"""Hub id in small letters -> name of its shape in plan/shapes.py."""
