"""A construction sequence in 8 bits: what a model reads and writes. All numbers are from 0 to 255 (DeepCAD's)."""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.cad.shape import Extent, Operation

Place = tuple[int, int]
"""In the grid of a profile, whose start lies at (128, 128)."""


@dataclass(frozen=True)
class LineTo:
    """A straight edge from where the loop stands."""

    end: Place


@dataclass(frozen=True)
class ArcTo:
    """An arc from where the loop stands; `sweep` / 256 of a whole turn."""

    end: Place
    sweep: int
    counter_clockwise: bool


@dataclass(frozen=True)
class CircleAt:
    """A whole circle."""

    center: Place
    radius: int


Command = LineTo | ArcTo | CircleAt


@dataclass(frozen=True)
class Path:
    """A loop: it starts where its last line or arc ends."""

    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Extrude:
    """A profile and how it is extruded, as one group SOL .. Ext of DeepCAD's vector."""

    paths: tuple[Path, ...]
    angles: tuple[int, int, int]
    """theta, phi, gamma of the sketch's plane."""
    origin: tuple[int, int, int]
    """Where the profile's start lies in space."""
    size: int
    """Of the sketch's box."""
    distances: tuple[int, int]
    operation: Operation
    extent: Extent


@dataclass(frozen=True)
class Sequence:
    """A whole part."""

    extrudes: tuple[Extrude, ...]
