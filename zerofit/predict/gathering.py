"""What ZeRO-3 gathers weights into: the flat tensors that they come in, and the whole ones that they become.

File:line are of DeepSpeed 0.19.8, runtime/zero/partition_parameters.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from zerofit.predict.coordinator import Handle, Status, Weight
from zerofit.predict.ledger import Account, Ledger
from zerofit.predict.zero_base import briefly


@dataclass(frozen=True)
class Shares:
    """How weights are cut."""

    ranks: int
    item: int
    """Bytes of an element."""
    offloaded: bool
    """Whether shares lie on the host."""
    on_cuda: bool
    """Whether weights are used elsewhere than on the host."""

    @property
    def copied(self) -> bool:
        """Whether a share is copied before it is sent, or used."""
        return self.offloaded and self.on_cuda

    def elements(self, weight: Weight) -> int:
        """Of a rank's share, its padding included."""
        return -(-weight.elements // self.ranks)

    def share(self, weight: Weight) -> int:
        """Bytes of it."""
        return self.item * self.elements(weight)

    def whole(self, weight: Weight) -> int:
        """Bytes of all shares."""
        return self.ranks * self.share(weight)


class Gathered:
    """Weights of ZeRO-3 on the device."""

    def __init__(self, device: Ledger, shares: Shares) -> None:
        self.device, self.shares = device, shares
        self.here: dict[Weight, Account] = {}

    def start(self, weights: list[Weight]) -> dict[Weight, Handle]:
        """Begin to gather (`all_gather_coalesced`, :1540)."""
        for weight in weights:
            weight.status = Status.COMING
        return dict.fromkeys(weights, self.handle(weights))

    def handle(self, weights: list[Weight]) -> Handle:
        """What they come in."""
        if self.shares.ranks == 1:
            return Local(self, weights)
        return Alone(self, weights[0]) if len(weights) == 1 else Together(self, weights)

    def keep(self, weight: Weight, account: Account) -> None:
        """It is whole."""
        weight.status, self.here[weight] = Status.HERE, account

    def at_once(self, weight: Weight) -> None:
        """Gather one and wait for it (`_allgather_params_sequential`, :2132), also where there is one rank."""
        self.keep(weight, self.device.open("gathered", self.shares.whole(weight)))

    def drop(self, weight: Weight) -> None:
        """Free a whole weight (:314)."""
        self.here.pop(weight).close()
        weight.status = Status.ABSENT


class Local:
    """One rank: the share is all of the weight, and used as it lies, or copied from the host (:61)."""

    def __init__(self, gathered: Gathered, weights: list[Weight]) -> None:
        self.gathered = gathered
        shares = gathered.shares
        copies = {one: shares.share(one) if shares.copied else 0 for one in weights}
        self.coming = {one: gathered.device.open("gathered", size) for one, size in copies.items()}

    def arrive(self) -> None:
        """As they are."""
        for weight, account in self.coming.items():
            self.gathered.keep(weight, account)
        self.coming = {}

    def let_go(self, weight: Weight) -> None:
        """Nothing else was made."""


class Alone:
    """One weight: gathered into what becomes the weight itself (:1373)."""

    def __init__(self, gathered: Gathered, weight: Weight) -> None:
        self.gathered, self.weight, self.arrived = gathered, weight, False
        device, shares = gathered.device, gathered.shares
        self.whole = device.open("gathered", shares.whole(weight))
        self.sent = device.open("gathered", shares.share(weight) if shares.copied else 0)

    def arrive(self) -> None:
        """It is the weight."""
        if not self.arrived:
            self.arrived = True
            self.sent.close()
            self.gathered.keep(self.weight, self.whole)

    def let_go(self, weight: Weight) -> None:
        """Nothing else was made."""


class Together:
    """Several: gathered into one flat tensor (:1343), which each is copied out of as they arrive (:795).

    The flat tensor goes with the last of them that is asked for, so what was prefetched is there twice until then.
    """

    def __init__(self, gathered: Gathered, weights: list[Weight]) -> None:
        self.gathered, self.weights, self.left = gathered, weights, set(weights)
        self.arrived = False
        shares = gathered.shares
        self.flat = gathered.device.open("gathered", sum(map(shares.whole, weights)))
        with briefly(gathered.device, "gathered", sum(map(shares.share, weights)) if shares.copied else 0):
            pass

    def arrive(self) -> None:
        """Copy all out, whichever was asked for."""
        if not self.arrived:
            self.arrived = True
            for weight in self.weights:
                size = self.gathered.shares.item * weight.elements
                self.gathered.keep(weight, self.gathered.device.open("gathered", size))

    def let_go(self, weight: Weight) -> None:
        """With the last, the flat tensor goes."""
        self.left.discard(weight)
        if not self.left:
            self.flat.close()
