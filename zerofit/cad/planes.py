"""A sketch's plane as three angles, DeepCAD's: theta and phi of its normal, gamma of its x axis about the normal.

DeepCAD itself takes phi as arctan(y / x), and so turns a plane whose normal has a negative x by half a turn about the z
axis: its vectors of such parts make other parts. Here phi is the normal's.
"""

from __future__ import annotations

import math

from zerofit.cad.shape import Frame, Vector

DIGITS = 6
"""Decimals to which a normal is taken: noise about the z axis would otherwise make any phi."""
NEAR = 1e-6
"""Radians: what is that near to -pi is pi."""


def angles_of(frame: Frame) -> tuple[float, float, float]:
    """theta from the z axis (0 .. pi), phi about it and gamma about the normal (above -pi, up to pi), in radians."""
    x, y, z = (round(value, DIGITS) + 0.0 for value in frame.normal)  # + 0.0: a -0.0 would turn phi around
    theta, phi = math.atan2(math.hypot(x, y), z), _folded(math.atan2(y, x))
    across, up, _ = _axes(theta, phi)
    return theta, phi, _folded(math.atan2(dot(frame.x_axis, up), dot(frame.x_axis, across)))


def frame_of(origin: Vector, theta: float, phi: float, gamma: float) -> Frame:
    """The plane of these angles."""
    across, up, normal = _axes(theta, phi)
    cosine, sine = math.cos(gamma), math.sin(gamma)
    return Frame(origin, _mixed(cosine, across, sine, up), _mixed(-sine, across, cosine, up), normal)


def dot(one: Vector, other: Vector) -> float:
    """Of two vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def _axes(theta: float, phi: float) -> tuple[Vector, Vector, Vector]:
    """x, y and z, turned by theta about y and then by phi about z: the plane's at gamma = 0."""
    normal = (math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta))
    across = (math.cos(theta) * math.cos(phi), math.cos(theta) * math.sin(phi), -math.sin(theta))
    return across, (-math.sin(phi), math.cos(phi), 0.0), normal


def _mixed(a: float, one: Vector, b: float, other: Vector) -> Vector:
    x, y, z = (a * left + b * right for left, right in zip(one, other, strict=True))
    return x, y, z


def _folded(angle: float) -> float:
    return math.pi if angle < NEAR - math.pi else angle
