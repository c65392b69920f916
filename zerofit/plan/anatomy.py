"""A run's model by its parts, without building it: parameters by name, what rules train of them, tokens of a sample."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from zerofit.config.located import HUB_ID, located
from zerofit.config.model import CadMllm, Model, PatchLM, Points, Vision, Vit
from zerofit.plan.blocks import (
    Sizes,
    Stack,
    decoder_block,
    encoder_block,
    fourier_width,
    perceiver_block,
)
from zerofit.plan.decoder import WITH_POSITIONS, Decoder, decoder_of
from zerofit.plan.prediction import Unpredicted
from zerofit.plan.rules import rules_of
from zerofit.plan.shapes import Shape, known_fields, published_shape
from zerofit.plan.slots import image_tokens, point_tokens, size_of, vision_fields
from zerofit.plan.spec import RunSpec


@dataclass(frozen=True)
class Part:
    """Something that is passed through by itself, in the order of a forward pass."""

    before: Sizes
    """Parameters before its blocks."""
    stack: Stack
    after: Sizes
    """Parameters after them."""
    tokens: int
    """Of a sample; of text of the longest one, of images of one that sees the most."""

    @property
    def outside(self) -> int:
        """Elements that are of no block."""
        return sum(self.before.values()) + sum(self.after.values())

    def parameters(self) -> Iterator[tuple[str, int]]:
        """(name, elements)."""
        yield from self.before.items()
        yield from self.stack.parameters()
        yield from self.after.items()


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model, the one whose blocks may have adapters last."""

    spec: RunSpec
    parts: tuple[Part, ...]
    head: tuple[int, int]
    """Of the last linear layer: (inputs, outputs)."""
    tied: bool = False
    """Whether that is the embedding."""
    adapted: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Linear layers that have adapters: whole name -> (inputs, outputs)."""

    @property
    def main(self) -> Part:
        """The one whose blocks may have adapters."""
        return self.parts[-1]

    @cached_property
    def matrices(self) -> int:
        """Elements of linear layers of the main part's blocks: what a 4-bit base holds in 4 bits."""
        return self.main.stack.count * self.main.stack.block.matrices

    @cached_property
    def parameters(self) -> int:
        """All elements, adapters apart."""
        return sum(part.stack.elements + part.outside for part in self.parts)

    @property
    def rest(self) -> int:
        """Elements that are not `matrices`."""
        return self.parameters - self.matrices

    def adapters(self, rank: int, targets: str) -> int:
        """Elements of adapters of that rank on the main part's linear layers whose name `targets` finds."""
        return sum(rank * (inputs + outputs) for inputs, outputs in _adapted(self.main.stack, targets).values())

    @cached_property
    def trained(self) -> Sizes:
        """Parameters with a gradient. The first rule that a name matches decides; none: frozen."""
        rules = [(re.compile(rule.pattern), rule.freeze) for rule in rules_of(self.spec.recipe)]
        found: Sizes = {}
        for name, size in self._named():
            frozen = next((freeze for pattern, freeze in rules if pattern.search(name)), True)
            if not frozen:
                found[name] = size
        return found

    @property
    def trains(self) -> int:
        """Elements with a gradient."""
        return sum(self.trained.values())

    def _named(self) -> Iterator[tuple[str, int]]:
        lora = self.spec.recipe.model.lora
        for part in self.parts:
            for name, size in part.parameters():
                layer, _, leaf = name.rpartition(".")
                yield (f"{layer}.base_layer.{leaf}" if layer in self.adapted else name), size
        for layer, (inputs, outputs) in self.adapted.items():
            assert lora is not None
            yield f"{layer}.lora_A.default.weight", lora.rank * inputs
            yield f"{layer}.lora_B.default.weight", lora.rank * outputs


def anatomy_of(spec: RunSpec) -> Anatomy:
    """The parts of the run's model. Raises Unpredicted where its sizes are not at hand, or it has experts."""
    model = spec.recipe.model
    fields = fields_of(model)
    parts: tuple[Part, ...]
    if isinstance(model, Vit):
        parts, head, tied = (_vit(spec, fields),), len(spec.images.classes), False
    elif isinstance(model, PatchLM):
        parts, head, tied = (_patch_lm(spec, model, fields),), len(spec.images.classes), False
    else:
        sizes = _decoder(model, fields)
        prefix = "language." if isinstance(model, CadMllm) else ""
        language = _language(sizes, prefix, spec.text.longest)
        encoders = _encoders(spec, model, sizes.hidden) if isinstance(model, CadMllm) else ()
        parts, head, tied = (*encoders, language), sizes.vocabulary, sizes.tied
    stack = parts[-1].stack
    adapted = {} if model.lora is None else _adapted(stack, model.lora.targets)
    return Anatomy(spec, parts, (stack.block.hidden, head), tied, adapted)


def fields_of(model: Model) -> Shape:
    """Config fields; of a hub's model that is not known here those of its config.json, if it was downloaded before."""
    fields = known_fields(model)
    if fields is None and model.pretrained is not None and HUB_ID.fullmatch(model.pretrained):
        directory = located(model.pretrained, "model.pretrained", ["config.json"], offline=True)
        if directory is not None and (directory / "config.json").is_file():
            fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if fields is None:
        raise Unpredicted(f"the sizes of {model.pretrained} are not at hand: download it, or give a directory")
    return fields


def _decoder(model: Model, fields: Shape) -> Decoder:
    sizes = decoder_of(fields)
    if sizes is None:
        raise Unpredicted(
            f"{model.pretrained or fields.get('model_type')} has experts, or says too little of its sizes"
        )
    return sizes


def _adapted(stack: Stack, targets: str) -> dict[str, tuple[int, int]]:
    found = {}
    for number in range(stack.count):
        for name, sizes in stack.block.linears.items():
            layer = f"{stack.prefix}{number}.{name}"
            if re.search(targets, layer):
                found[layer] = sizes
    return found


def _patches(spec: RunSpec, fields: Shape) -> tuple[int, int]:
    """Pixels per side of a patch, and patches of an image."""
    model = spec.recipe.image_model
    patch = model.patch_size or fields.get("patch_size")
    if not isinstance(patch, int):
        raise Unpredicted("the model has no patch_size")
    return patch, ((model.image_size or spec.images.image_size) // patch) ** 2


def _vit(spec: RunSpec, fields: Shape) -> Part:
    block, (patch, patches) = encoder_block(fields), _patches(spec, fields)
    hidden, inside = block.hidden, "backbone.embeddings."
    before = _embeddings(inside, patch, patches, hidden)
    after = {"backbone.layernorm.weight": hidden, "backbone.layernorm.bias": hidden}
    stack = Stack("backbone.layers.", int(fields["num_hidden_layers"]), block)
    return Part(before, stack, after | _classifier(spec, hidden), patches + 1)


def _embeddings(inside: str, patch: int, patches: int, hidden: int) -> Sizes:
    """What a vision transformer has before its blocks, by names that begin with `inside`."""
    return {
        f"{inside}cls_token": hidden,
        f"{inside}position_embeddings": (patches + 1) * hidden,
        f"{inside}patch_embeddings.projection.weight": 3 * patch**2 * hidden,
        f"{inside}patch_embeddings.projection.bias": hidden,
    }


def _patch_lm(spec: RunSpec, model: PatchLM, fields: Shape) -> Part:
    sizes = decoder_of({**fields, "vocab_size": fields.get("vocab_size") or 1})
    sizes = sizes or _decoder(model, fields)
    patch, patches = _patches(spec, fields)
    hidden, gpt2 = sizes.hidden, sizes.family in WITH_POSITIONS
    before = {"patch_embedding.weight": 3 * patch**2 * hidden, "patch_embedding.bias": hidden}
    if model.pool == "cls":
        before["cls_token"] = hidden
    if gpt2:
        before["backbone.wpe.weight"] = sizes.context * hidden
    after = (
        {f"backbone.ln_f.{part}": hidden for part in ("weight", "bias")} if gpt2 else {"backbone.norm.weight": hidden}
    )
    stack = Stack("backbone.h." if gpt2 else "backbone.layers.", sizes.layers, decoder_block(sizes))
    return Part(before, stack, after | _classifier(spec, hidden), patches + (model.pool == "cls"))


def _classifier(spec: RunSpec, hidden: int) -> Sizes:
    classes = len(spec.images.classes)
    return {"head.weight": classes * hidden, "head.bias": classes}


def _language(sizes: Decoder, prefix: str, tokens: int) -> Part:
    gpt2 = sizes.family in WITH_POSITIONS
    inside = f"{prefix}{'transformer' if gpt2 else 'model'}."
    before = {f"{inside}{'wte' if gpt2 else 'embed_tokens'}.weight": sizes.head}
    after = {f"{inside}norm.weight": sizes.hidden}
    if gpt2:
        before[f"{inside}wpe.weight"] = sizes.context * sizes.hidden
        after = {f"{inside}ln_f.{part}": sizes.hidden for part in ("weight", "bias")}
    if not sizes.tied:
        after[f"{prefix}lm_head.weight"] = sizes.head
    return Part(
        before, Stack(f"{inside}{'h' if gpt2 else 'layers'}.", sizes.layers, decoder_block(sizes)), after, tokens
    )


def _encoders(spec: RunSpec, model: CadMllm, width: int) -> tuple[Part, ...]:
    parts = []
    if model.points is not None:
        parts.append(_points(model, model.points, width))
    if model.vision is not None:
        images = spec.recipe.cad.views_at_once[1] if spec.recipe.cad.shows("image") else 1  # of zeros, for nothing
        parts.append(_vision(model.vision, width, images))
    return tuple(parts)


def _points(model: CadMllm, points: Points, width: int) -> Part:
    block, inputs = perceiver_block(points), fourier_width(points)
    before = {
        "points.latents": points.latents * points.width,
        "points.embedding.weight": inputs * points.width,
        "points.embedding.bias": points.width,
    }
    after = {"points.norm.weight": points.width, "points.norm.bias": points.width}
    stack = Stack("points.blocks.", points.depth + 1, block)
    return Part(before, stack, after | _projector("point_projector", points.width, width), point_tokens(model))


def _vision(vision: Vision, width: int, images: int) -> Part:
    fields = encoder_fields(vision)
    block, patch = encoder_block(fields), int(fields["patch_size"])
    patches = (size_of(vision, fields) // patch) ** 2
    inside, hidden = "vision.embeddings.", block.hidden
    before = _embeddings(inside, patch, patches, hidden)
    after = {"vision.layernorm.weight": hidden, "vision.layernorm.bias": hidden}
    blocks = "vision.encoder.layer." if fields.get("model_type") == "dinov2" else "vision.layers."
    stack = Stack(blocks, int(fields["num_hidden_layers"]), block)
    return Part(before, stack, after | _projector("image_projector", hidden, width), images * (patches + 1))


def encoder_fields(vision: Vision) -> Shape:
    """The config fields of an image encoder: as it is known by its hub id, else `slots.vision_fields`.

    Raises UserError.
    """
    known = None if vision.pretrained is None else published_shape(vision.pretrained)
    return known or vision_fields(vision)


def offline(model: CadMllm) -> CadMllm:
    """`model` with an image encoder whose sizes are known here given by them, so that nobody asks the hub for them."""
    vision = model.vision
    if vision is None or vision.pretrained is None or published_shape(vision.pretrained) is None:
        return model
    fields = encoder_fields(vision)
    shaped = vision.model_copy(update={"pretrained": None, "shape": fields, "image_size": size_of(vision, fields)})
    return model.model_copy(update={"vision": shaped})


def slots(model: CadMllm) -> tuple[int, int]:
    """Tokens that a cloud and an image take. Raises UserError."""
    known = offline(model)
    return point_tokens(known), image_tokens(known)


def _projector(name: str, inputs: int, outputs: int) -> Sizes:
    return {
        f"{name}.norm.weight": inputs,
        f"{name}.norm.bias": inputs,
        f"{name}.up.weight": inputs * outputs,
        f"{name}.up.bias": outputs,
        f"{name}.down.weight": outputs * outputs,
        f"{name}.down.bias": outputs,
    }
