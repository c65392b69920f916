"""What ZeRO++ gathers weights into: int8 on their way, and a second share within the host for the backward pass.

File:line are of DeepSpeed 0.19.8, runtime/zero/partition_parameters.py; scales, four bytes for thousands of elements,
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from zerofit.predict.coordinator import Handle, Weight
from zerofit.predict.gathering import Gathered, Shares
from zerofit.predict.ledger import Account, Ledger
from zerofit.predict.zero_base import briefly
from zerofit.train.zero import travels_as_int8

HALF = 2
"""Bytes of float16, which the kernels know alone (:893)."""


class GatheredInt8(Gathered):
    """`host`: ranks of one host, which hold a second share of each weight from its first use to the step."""

    def __init__(self, device: Ledger, shares: Shares, host: int, second: Ledger) -> None:
        super().__init__(device, shares)
        self.host = host
        self.second = second
        """Where second shares lie."""
        self.seconds: dict[Weight, Account] = {}

    def start(self, weights: list[Weight]) -> dict[Weight, Handle]:
        """Apart are those with a second share (runtime/zero/partitioned_param_coordinator.py:597), and what is int8."""
        handles: dict[Weight, Handle] = {}
        for known, rounded in product((True, False), repeat=2):
            some = [one for one in weights if ((one in self.seconds), self.rounds(one)) == (known, rounded)]
            if some:
                handles.update(super().start(some))
        return handles

    def handle(self, weights: list[Weight]) -> Handle:
        return Int8(self, weights) if self.rounds(weights[0]) else super().handle(weights)

    def rounds(self, weight: Weight) -> bool:
        """Whether it travels as int8 (zerofit.train.zero.gather_as_int8)."""
        return self.shares.ranks > 1 and travels_as_int8(weight.elements, self.shares.ranks, weight.adapter)

    def drop(self, weight: Weight) -> None:
        """As it goes for the first time, its second share is made (`_partition_param_sec`, :1900)."""
        self.add_second(weight)
        super().drop(weight)

    def add_second(self, weight: Weight) -> None:
        """Unless it is there."""
        if self.host > 1 and weight not in self.seconds:
            size = self.shares.whole(weight) // self.host
            self.seconds[weight] = self.second.open("weights", size)

    def forget(self, weights: Iterable[Weight]) -> None:
        """Second shares of what an optimizer's step has changed."""
        for weight in weights:
            if (second := self.seconds.pop(weight, None)) is not None:
                second.close()


class Int8:
    """Shares are joined, cast to float16 and quantised (:1446); what arrives is float16 again, and cast (:772)."""

    def __init__(self, gathered: GatheredInt8, weights: list[Weight]) -> None:
        self.gathered, self.weights, self.left = gathered, weights, set(weights)
        self.arrived = False
        device, shares = gathered.device, gathered.shares
        own = sum(map(shares.elements, weights))
        self.flat = device.open("gathered", own * shares.ranks)
        joined = shares.item * own if len(weights) > 1 else 0
        with briefly(device, "gathered", joined + HALF * own):
            self.sent = device.open("gathered", own)

    def arrive(self) -> None:
        """One alone becomes the weight by a cast; several are copied out one by one, and each is cast."""
        if self.arrived:
            return
        self.arrived = True
        self.sent.close()
        device, shares = self.gathered.device, self.gathered.shares
        half = device.open("gathered", HALF * sum(map(shares.elements, self.weights)) * shares.ranks)
        for weight in self.weights:
            copy = HALF * weight.elements if len(self.weights) > 1 else 0
            with briefly(device, "gathered", copy):
                whole = device.open("gathered", shares.item * weight.elements)
            self.gathered.keep(weight, whole)
        if len(self.weights) == 1:
            half.close()
        self.half = half

    def let_go(self, weight: Weight) -> None:
        """With the last, what they came in goes."""
        self.left.discard(weight)
        if not self.left:
            self.flat.close()
            self.half.close()
