"""Traces of GPUs, analysed by HTA (HolisticTraceAnalysis): how each rank's time divides, and what its kernels are.

HTA parses, aligns the ranks, leaves out an incomplete last step, and says what is idle, compute and communication. What
it does not say is counted here from its own tables: exposed communication, causes that add up to the idle time (its own
are a stream's), and who is waited for (it knows no kernels of today's NCCL by their names).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from zerofit.config.errors import UserError
from zerofit.report.trace import spans
from zerofit.report.trace.body import Analysis, Kernel, Rank, make_strip
from zerofit.report.trace.scan import GPU, Scanned

INSTALL = "pip install 'zerofit[trace]'"
EXACT = "HTA_DISABLE_NS_ROUNDING"
"""HTA's variable without which it cuts each kernel to whole microseconds within, a third of those of two or three."""
LAUNCH_GAP = 30.0
"""Microseconds between two kernels, of which the second one waited in the queue, that are the launch's own."""


def analyse(scanned: Scanned, progress: Callable[[], None]) -> Analysis:
    """The analysis of the ranks that have events of a GPU; `progress` is called once a rank.

    Raises UserError where HTA is not installed or cannot make anything of the traces.
    """
    try:
        with quiet():
            import hta.common.trace  # noqa: F401
    except ImportError as error:
        raise UserError(f"traces of GPUs are analysed by HTA, which is not there ({error}): {INSTALL}") from None
    try:
        with quiet():
            return _analyse(scanned, progress)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"HTA makes nothing of these traces ({type(error).__name__}: {error}); "
            "are they of one window, as torch.profiler wrote them?"
        ) from error


def _analyse(scanned: Scanned, progress: Callable[[], None]) -> Analysis:
    from hta.analyzers.breakdown_analysis import BreakdownAnalysis

    trace = _loaded(scanned, progress)
    tables = {rank: _Kernels(trace, rank) for rank in sorted(trace.traces)}
    steps = _steps(scanned)
    split = BreakdownAnalysis.get_temporal_breakdown(trace, visualize=False)
    rows = {int(row["rank"]): row for row in split.to_dict("records")}
    kinds, _ = BreakdownAnalysis.get_gpu_kernel_breakdown(
        trace, visualize=False, num_kernels=10**9, include_memory_kernels=True
    )
    whole = float(kinds["sum"].sum())
    return Analysis(
        device="cuda",
        steps=steps,
        left_out=[step for step in scanned.steps if step not in steps],
        ranks=[table.split(rows[rank]) for rank, table in tables.items()],
        kinds=[
            {"kind": str(row["kernel_type"]), "us": float(row["sum"]), "share": float(row["sum"]) / whole}
            for row in kinds.to_dict("records")
        ],
        kernels=_sorted_kernels(tables.values()),
        idle=[
            {"rank": rank, "cause": cause, "us": us}
            for rank, table in tables.items()
            for cause, us in table.causes().items()
        ],
        launch=_launches(trace, list(tables)),
        collectives={rank: table.collectives for rank, table in tables.items()},
        strip=make_strip({rank: table.of_step(steps[0] if steps else None) for rank, table in tables.items()}),
    )


def _loaded(scanned: Scanned, progress: Callable[[], None]) -> Any:
    """HTA's trace of all ranks, parsed in this process: it would start others, which write to the terminal."""
    from hta.common.trace import Trace

    chosen = scanned.on_gpu
    trace = Trace({one.rank: str(one.path.absolute()) for one in chosen}, "/")
    for one in chosen:
        trace.parse_multiple_ranks([one.rank], use_multiprocessing=False)
        progress()
    # Marks of steps on the GPU begin later than the step does: with them a part of the step left out would be counted.
    annotation = trace.symbol_table.get_sym_id_map().get("gpu_user_annotation", -1)
    for rank, frame in trace.traces.items():
        trace.traces[rank] = frame[frame["cat"].ne(annotation)]
    trace.is_parsed = True
    trace.align_and_filter_trace(include_last_profiler_step=all(one.whole for one in chosen))
    for rank, frame in trace.traces.items():
        # Two events of the CPU (the runtime's and the driver's) may have launched one kernel.
        trace.traces[rank] = frame.drop_duplicates("index").set_index("index", drop=False)
    return trace


def _steps(scanned: Scanned) -> list[int]:
    """The steps that are analysed: of several the last one is left out where it may be cut off."""
    steps = scanned.steps
    return steps if len(steps) < 2 or all(one.whole for one in scanned.on_gpu) else steps[:-1]


class _Kernels:
    """The kernels of one rank, in HTA's table: names, kinds, times."""

    def __init__(self, trace: Any, rank: int) -> None:
        from hta.utils.utils import get_kernel_type

        frame, symbols = trace.get_trace(rank), trace.symbol_table.get_sym_table()
        self.rank = rank
        table = frame[frame["stream"].ne(-1)].sort_values("ts", kind="stable")
        self.start = table["ts"].to_numpy(dtype=np.float64)
        self.length = table["dur"].to_numpy(dtype=np.float64)
        self.step = table["iteration"].to_numpy(dtype=np.int64)
        names = {number: symbols[number] for number in table["name"].unique()}
        types = {number: get_kernel_type(name) for number, name in names.items()}
        self.name = [names[number] for number in table["name"]]
        self.kind = np.array([types[number] for number in table["name"]], dtype=object)
        self.counted = table["cat"].isin([trace.symbol_table.get_sym_id_map().get(one, -1) for one in GPU]).to_numpy()
        launched = frame["ts"].reindex(table["index_correlation"])  # of the call on the CPU; NaN where it is not there
        self.launched = np.where(table["index_correlation"] > 0, launched.to_numpy(dtype=np.float64), np.nan)

    def of(self, kind: str, chosen: Any = slice(None)) -> spans.Spans:
        """When kernels of a kind ran."""
        own = self.kind[chosen] == kind
        return spans.union(self.start[chosen][own], self.length[chosen][own])

    def of_step(self, step: int | None) -> dict[str, spans.Spans]:
        """When each kind ran, of kernels launched in one step."""
        chosen = self.step == step if step is not None and bool((self.step == step).any()) else self.step == self.step
        kinds = {"compute": "COMPUTATION", "communication": "COMMUNICATION", "memory": "MEMORY"}
        return {name: self.of(kind, chosen) for name, kind in kinds.items()}

    def split(self, row: dict[str, Any]) -> Rank:
        """How the rank's time divides; `row` is HTA's."""
        compute, communication = self.of("COMPUTATION"), self.of("COMMUNICATION")
        hidden, whole = spans.both(compute, communication), spans.total(communication)
        return Rank(
            rank=self.rank,
            span_us=float(row["kernel_time(us)"]),
            compute_us=float(row["compute_time(us)"]),
            communication_us=whole,
            memory_us=spans.total(self.of("MEMORY")),
            exposed_communication_us=whole - hidden,
            non_compute_us=float(row["non_compute_time(us)"]),
            idle_us=float(row["idle_time(us)"]),
            overlap=hidden / whole if whole else None,
            device="cuda",
        )

    @property
    def collectives(self) -> int:
        """How many kernels of communication there are."""
        return int((self.kind == "COMMUNICATION").sum())

    def causes(self) -> dict[str, float]:
        """Idle time by what the kernel that ended it waited for: the CPU that launched it, its launch, or others."""
        busy = spans.union(self.start, self.length)
        begins, ends = spans.gaps(busy)
        first = np.searchsorted(self.start, ends, side="left")
        launched, gap = self.launched[first], ends - begins
        host = launched > begins  # not so where it is not known
        wait = ~host & (gap < LAUNCH_GAP)
        chosen = {"host_wait": host, "kernel_wait": wait, "other": ~host & ~wait}
        return {cause: float(gap[which].sum()) for cause, which in chosen.items()}


def _sorted_kernels(tables: Any) -> list[Kernel]:
    """All kernels by their names, those with most time first."""
    times: dict[tuple[str, str], list[float]] = {}
    for table in tables:
        for name, kind, length, counted in zip(table.name, table.kind, table.length, table.counted, strict=True):
            if counted:
                entry = times.setdefault((name, kind), [0.0, 0.0])
                entry[0] += length
                entry[1] += 1
    made = [Kernel(name, kind, us, int(count)) for (name, kind), (us, count) in times.items()]
    return sorted(made, key=lambda kernel: (-kernel.us, kernel.name))


def _launches(trace: Any, ranks: Sequence[int]) -> list[dict[str, Any]]:
    from hta.analyzers.cuda_kernel_analysis import CudaKernelAnalysis

    made = []
    for rank, table in CudaKernelAnalysis.cuda_kernel_launch_stats(trace, ranks=list(ranks), visualize=False).items():
        made.append(
            {
                "rank": int(rank),
                "count": len(table),
                "short_kernels": int((table["gpu_duration"] < table["cpu_duration"]).sum()),
                "mean_delay_us": float(table["launch_delay"].mean()) if len(table) else None,
                "mean_call_us": float(table["cpu_duration"].mean()) if len(table) else None,
            }
        )
    return made


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """To the nanosecond, and without what HTA prints, logs and warns of: pandas' deprecations, and its steps' times."""
    logger = logging.getLogger("hta")
    level, rounding = logger.level, os.environ.get(EXACT)
    logger.setLevel(logging.CRITICAL + 1)
    os.environ[EXACT] = "1"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if rounding is None:
            del os.environ[EXACT]
        else:
            os.environ[EXACT] = rounding
