"""The oracle of the task cad: one process, plain PyTorch, each row alone. See reference.py."""

from __future__ import annotations

import math

import torch
from cad_task import Row, global_batch, test_rows
from reference import CPU, Curve, groups, optimizer_of, schedule
from torch import Tensor, nn

from zerofit.models.build import build_model
from zerofit.models.placement import WholePlacement
from zerofit.plan.spec import RunSpec


def cad_reference(spec: RunSpec) -> Curve:
    """Train row by row: no padding, no accumulation, no ranks, and no encoder runs for nothing.

    The loss is the sum over all tokens that are learnt in the global batch, divided by their number.
    """
    sizes = spec.batches
    model = build_model(spec, WholePlacement(CPU, torch.float32), torch.float32)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizer_of(spec, groups(model, spec))
    curve = Curve(elements=sum(parameter.numel() for parameter in trained))
    for step in range(sizes.total_steps):
        rows = global_batch(spec, step)
        factor = schedule(spec.recipe.optimizer.schedule, step, sizes.warmup_steps, sizes.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        targets, loss = sum(learnt(row) for row in rows), 0.0
        for row in rows:
            part = row_loss(model, row) / targets
            part.backward()
            loss += part.item()
        norm = nn.utils.clip_grad_norm_(trained, spec.recipe.optimizer.clip_grad or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        curve.loss.append(loss)
        curve.grad_norm.append(norm.item())
    model.eval()
    with torch.no_grad():
        rows = test_rows(spec)
        curve.test_loss = sum(row_loss(model, row).item() for row in rows) / sum(learnt(row) for row in rows)
    named = model.named_parameters()
    curve.weights = {name: parameter.detach() for name, parameter in named if parameter.requires_grad}
    return curve


def learnt(row: Row) -> int:
    """Tokens of the answer."""
    return int((row.labels != -100).sum())


def row_loss(model: nn.Module, row: Row) -> Tensor:
    """Minus the log-probability of the answer's tokens, each after all places before it, added up."""
    tokens = model.language.get_input_embeddings()(row.tokens[None])
    found = [model.point_projector(model.points(one[None])) for one in row.points]
    for image in row.images:
        patches = model.vision(pixel_values=image[None]).last_hidden_state[:, 1:]  # the first is the class token
        found.append(model.image_projector(patches))
    if found:
        tokens = torch.cat([*found, tokens[:, sum(part.shape[1] for part in found) :]], dim=1)
    logs = model.language(inputs_embeds=tokens).logits[0].log_softmax(dim=1)
    places = (row.labels != -100).nonzero().squeeze(1)
    return -logs[places - 1, row.labels[places]].sum()
