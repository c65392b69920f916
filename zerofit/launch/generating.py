"""`zerofit generate RUN`: one CAD model, from what is told of it to a file; in this process."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zerofit.config.cad import UNTOLD, Inputs
from zerofit.config.errors import UserError
from zerofit.evaluate.shape_asked import check_seen
from zerofit.launch import rundir, workarounds
from zerofit.launch.evaluation import chosen_checkpoint
from zerofit.launch.reference import split
from zerofit.plan.hardware import detect
from zerofit.plan.precision import resolve_precision
from zerofit.plan.spec import Hardware, RunSpec
from zerofit.report.table import aligned

if TYPE_CHECKING:
    import torch

    from zerofit.cad.kernel import Kernel, Solid
    from zerofit.evaluate.one_shape import Told, Try

TEXT = ".txt"
"""Suffix of a command text."""
FORMS = (".step", ".stl", ".png", TEXT)


@dataclass(frozen=True)
class Wanted:
    """The options."""

    run: Path
    """RUN or RUN@STEP."""
    out: Path
    """Its suffix says what is written."""
    caption: str | None = None
    points: Path | None = None
    images: tuple[Path, ...] = ()
    fit: bool = False
    """Scale the points to the size of a part."""
    seed: int = 0
    temperature: float | None = None
    """null: the likeliest text first, then 0.7."""
    tries: int = 4
    constrained: bool = True
    """Hold texts to the grammar."""
    max_tokens: int | None = None
    """null: as many as the longest training sample has."""
    step: int | None = None
    """Of the checkpoint; null: the newest."""

    @property
    def inputs(self) -> Inputs:
        """What is told."""
        return Inputs(self.caption is not None, self.points is not None, bool(self.images))

    def check(self) -> None:
        """Raise UserError for what cannot be done, whatever the run."""
        if self.out.suffix not in FORMS:
            raise UserError(f"--out {self.out}: a CAD model is written as one of {', '.join(FORMS)}")
        if not self.out.absolute().parent.is_dir():
            raise UserError(f"--out {self.out}: {self.out.absolute().parent} is no directory")
        if self.inputs.name == UNTOLD:
            raise UserError("say what to make: --text, --points or --image, or several of them")
        if self.caption is not None and not self.caption.strip():
            raise UserError("--text: says nothing")
        for option, paths in (("--points", [self.points] if self.points else []), ("--image", self.images)):
            for path in paths:
                if not path.is_file():
                    raise UserError(f"{option} {path}: there is no such file")
        if self.fit and self.points is None:
            raise UserError("--fit: is for --points; leave it out")
        if self.temperature == 0 and self.tries > 1:
            raise UserError(
                f"--temperature 0 writes the same each time: use --tries 1, or one above 0 for {self.tries} tries"
            )


def generate(wanted: Wanted) -> int:
    """Write the first valid solid; 1 where no try makes one. Raises UserError before that where it cannot be tried."""
    wanted.check()
    run, at = split(wanted.run)
    if at is not None and wanted.step is not None:
        raise UserError(f"{wanted.run} names a step, and so does --checkpoint {wanted.step}: leave one of them out")
    spec = rundir.load(run)
    if spec.recipe.task != "cad":
        raise UserError(f"{run} is of task {spec.recipe.task}: shapes are made by a run of the task cad")
    checkpoint = chosen_checkpoint(spec.run_dir, wanted.step if at is None else at)
    _check_told(wanted, spec)
    workarounds.quiet()  # before what it quiets is imported
    from zerofit.cad.kernel import Kernel
    from zerofit.evaluate.one_shape import How, Writer

    spec = _on(detect(), spec)
    with Kernel() as kernel:  # what is missing of it is said before anything is computed
        told = _told(wanted, spec)
        how = How(wanted.seed, wanted.temperature, wanted.constrained, wanted.max_tokens)
        writer = Writer(spec, checkpoint, _device(spec.hardware), how)
        failed: list[str] = []
        for one in writer.tries(told, wanted.tries, kernel):
            why = _written(one, wanted.out, kernel)
            if why is None:
                print(_table(one, wanted.out, failed))
                return 0
            failed.append(f"{len(failed) + 1}: {why}")
    print(
        f"none of {wanted.tries} tries made a valid solid, and nothing is written: {'; '.join(failed)}", file=sys.stderr
    )
    print(f"next: --tries {4 * wanted.tries}, another --seed, or a run that was trained for longer", file=sys.stderr)
    return 1


def _check_told(wanted: Wanted, spec: RunSpec) -> None:
    """Raise UserError for what the model cannot see; say what it was not trained to see."""
    inputs, model = wanted.inputs, spec.recipe.cad_model
    check_seen(Inputs(text=False, points=inputs.points, image=False), model, "--points")
    check_seen(Inputs(text=False, points=False, image=inputs.image), model, "--image")
    least, most = spec.recipe.cad.views_at_once
    images = len(wanted.images)
    if images > most:
        raise UserError(
            f"--image: {images} images, but the run's rows saw {most} at once at most: leave {images - most} out"
        )
    trained = [share.inputs.name for share in spec.recipe.cad.shares]
    if inputs.name not in trained:
        print(f"{inputs.name}: the run was trained on {', '.join(trained)} alone; expect little", file=sys.stderr)
    if 0 < images < least:
        print(f"--image: {images}, and the run was trained on {least} or more at once; expect little", file=sys.stderr)


def _on(hardware: Hardware, spec: RunSpec) -> RunSpec:
    return spec.model_copy(update={"hardware": hardware, "precision": resolve_precision("auto", hardware)})


def _device(hardware: Hardware) -> torch.device:
    import torch

    return torch.device(hardware.device, 0) if hardware.device == "cuda" else torch.device("cpu")


def _told(wanted: Wanted, spec: RunSpec) -> Told:
    """What is told, read. Raises UserError that names the option."""
    from zerofit.cad.errors import CadError
    from zerofit.data.cad import image_size_of
    from zerofit.data.cad_points import cloud_at
    from zerofit.data.cad_views import picture
    from zerofit.evaluate.one_shape import Told

    cloud = None
    if wanted.points is not None:
        wants = spec.recipe.cad.points
        try:
            cloud, points = cloud_at(wanted.points, wants, fit=wanted.fit)
        except CadError as error:
            raise UserError(f"--points {wanted.points}: {error}") from None
        if points < wants:
            print(f"--points: {points:,} of {wants:,}: some are taken twice", file=sys.stderr)
    images, size = [], image_size_of(spec.recipe)
    for path in wanted.images:
        assert size is not None, "what the model cannot see is refused"
        try:
            images.append(picture(path, size))
        except CadError as error:
            raise UserError(f"--image {path}: {error}") from None
    return Told(wanted.caption, cloud, tuple(images))


def _written(one: Try, out: Path, kernel: Kernel) -> str | None:
    """Write it; why that cannot be, where it is no valid solid."""
    from zerofit.cad.kernel import Invalid

    if isinstance(one.solid, Invalid):
        return one.solid.reason
    assert one.shape is not None
    if out.suffix == TEXT:
        out.write_text(f"{one.text}\n", encoding="ascii")
        return None
    failed = kernel.write(one.shape, out)
    return None if failed is None else failed.reason


def _table(one: Try, out: Path, failed: list[str]) -> str:
    from zerofit.cad.kernel import Solid

    assert isinstance(one.solid, Solid)
    rows = [("wrote", os.path.relpath(out)), ("solid", _solid(one.solid)), ("commands", f"{one.text.count(chr(10))}")]
    if failed:
        rows.append(("tries", f"{len(failed) + 1}; {'; '.join(failed)}"))
    return aligned(rows)


def _solid(solid: Solid) -> str:
    low, high = solid.box
    size = " x ".join(f"{upper - lower:.4g}" for lower, upper in zip(low, high, strict=True))
    bodies = "" if solid.bodies == 1 else f", {solid.bodies} bodies"
    return f"{size}, volume {solid.volume:.4g}, {solid.faces} faces{bodies}"
