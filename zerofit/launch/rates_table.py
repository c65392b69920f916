"""What was measured of a device beside what is assumed of it where nothing was: the rows of a table."""

from __future__ import annotations

from collections.abc import Iterator

from zerofit.plan.calibration import Calibration, Links, Product
from zerofit.plan.fitting import COMMUNICATORS, CONTEXT
from zerofit.plan.spec import Hardware
from zerofit.predict.rates import Rates, rates_of

Row = tuple[str, str, str]
"""What, measured, assumed."""
HEADS: Row = ("", "measured", "shipped")


def rows(found: Calibration, hardware: Hardware) -> list[Row]:
    """Of `hardware`, which `found` is of. A CPU's are assumed to be nothing: no run is predicted for one."""
    links = found.between(max(found.links, default=1))
    ranks = 1 if links is None else max(found.links)
    shipped = rates_of(hardware, ranks)
    return [HEADS, *_device(found, shipped), *_host(found, shipped, ranks), *_links(links, ranks, shipped)]


def _device(found: Calibration, shipped: Rates | None) -> Iterator[Row]:
    for precision, products in found.products.items():
        if products:
            best = max(products, key=lambda one: one.tera)
            least = min(products, key=lambda one: one.tera)
            yield f"{precision} products, {_shape(best)}", _tera(best.tera), _assumed(shipped, precision)
            yield f"{precision} products, {_shape(least)}", _tera(least.tera), _assumed(shipped, precision)
    for one in found.attention[-1:]:
        what, low = f"attention of {one.tokens:,} tokens", next(iter(found.products), "fp32")
        yield f"{what}, forward", _tera(one.forward_tera), _assumed(shipped, low)
        yield f"{what}, backward", _tera(one.backward_tera), _assumed(shipped, low)
    yield "memory", _giga(found.memory), "" if shipped is None else _giga(shipped.memory / 1e9)
    if found.kernel_s is not None:
        yield "shortest kernel", _micro(found.kernel_s), "" if shipped is None else _micro(shipped.kernel_s)
    yield "launch by the host", _micro(found.launch_s), "" if shipped is None else _micro(shipped.launch_s)
    if found.modules_gib is not None:
        yield "CUDA's context", "" if found.context_gib is None else f"{found.context_gib:.2f} GiB", ""
        yield "with cuBLAS and kernels", f"{found.modules_gib:.2f} GiB", f"{CONTEXT:.2f} GiB"


def _host(found: Calibration, shipped: Rates | None, ranks: int) -> Iterator[Row]:
    for what, rate in (("PCIe to the GPU", found.pcie_up), ("PCIe to the host", found.pcie_down)):
        if rate is not None:
            yield what, _giga(rate), "" if shipped is None else _giga(shipped.pcie / 1e9)
    yield "AdamW on the host", _giga(found.host), "" if shipped is None else _giga(ranks * shipped.host / 1e9)
    for what, rate in (("drive, written", found.disk_write), ("drive, read", found.disk_read)):
        if rate is not None:
            yield what, _giga(rate), ""


def _links(links: Links | None, ranks: int, shipped: Rates | None) -> Iterator[Row]:
    if links is None:
        return
    for message in links.messages:
        for what in ("all_reduce", "all_gather", "reduce_scatter"):
            name = f"{what.replace('_', '-')} of {message.mib:g} MiB, {ranks} ranks ({links.backend})"
            rate: float = dict(message)[what]
            yield name, _giga(rate), "" if shipped is None else _giga(shipped.link / 1e9)
    if links.communicators_gib is not None:
        yield f"communicators of {ranks} ranks", f"{links.communicators_gib:.2f} GiB", f"{COMMUNICATORS:.2f} GiB"


def _shape(one: Product) -> str:
    return f"{one.tokens:,} x {one.inputs:,} x {one.outputs:,}"


def _assumed(shipped: Rates | None, precision: str) -> str:
    return "" if shipped is None else _tera(shipped.products[precision] / 1e12)


def _tera(rate: float) -> str:
    return f"{_digits(rate)} TFLOP/s"


def _giga(rate: float) -> str:
    return f"{_digits(rate)} GB/s"


def _digits(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _micro(seconds: float) -> str:
    return f"{1e6 * seconds:.1f} us"
