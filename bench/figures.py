"""What all benches share: rows of one table, kept as JSON, and the options to ask for them."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from inspect import isgeneratorfunction
from pathlib import Path
from typing import Any

from mvemo.manifests.text_table import align_columns

# Times slower than in the earlier run from which on a row is marked; noise stays below it.
SLOWER = 1.2


@dataclass(frozen=True)
class Row:
    """One figure beside that of an alternative, of the same run.

    Parameters
    ----------
    what
        Was measured.
    value, unit
        Of ours.
    alternative
        What it is compared with; empty for nothing.
    other
        The alternative's value in the same unit; NaN for none.
    ratio
        The one that the goal is about; NaN for none.
    goal
        ``<= 1.5`` or ``>= 2``; empty for none.
    limit
        The best value that the machine could give, in the same unit; NaN for none.
    share
        Part of a whole that this is, from 0 to 1; NaN for none.
    """

    what: str
    value: float
    unit: str
    alternative: str = ""
    other: float = math.nan
    ratio: float = math.nan
    goal: str = ""
    limit: float = math.nan
    share: float = math.nan

    def times_slower(self, other: float) -> float:
        """Return how many times slower this is than `other`; NaN for sizes and unknown values."""
        if "/" in self.unit and self.value:
            return other / self.value
        return self.value / other if self.unit.split()[0] in ("s", "ms") and other else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the ratio meets the goal; None where there is none."""
        if not self.goal or math.isnan(self.ratio):
            return None
        sign, _, limit = self.goal.partition(" ")
        return self.ratio <= float(limit) if sign == "<=" else self.ratio >= float(limit)


def bench_parser(text: str) -> argparse.ArgumentParser:
    """A bench's options: those of all, `text` being its docstring."""
    parser = argparse.ArgumentParser(description=text.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, for `make bench`")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser


def finish(chosen: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Print a bench's rows, and write them where ``--json`` says."""
    print("\n".join(table_lines(rows, judged=not chosen.quick)))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def table_lines(
    rows: Sequence[Row], *, judged: bool, before: Mapping[str, float] | None = None
) -> list[str]:
    """Return an aligned table without its empty columns; only full sizes are `judged`.

    Rows that became slower than `before`, values of an earlier run by `what`, are marked.
    """
    header = "measured,value,share,alternative,its value,ratio,limit,times limit,goal,,before,"
    cells = [header.split(",")]
    for row in rows:
        earlier = (before or {}).get(row.what, math.nan)
        cells.append(
            [
                row.what,
                number(row.value, f" {row.unit}"),
                "" if math.isnan(row.share) else f"{row.share:.0%}",
                row.alternative,
                number(row.other, f" {row.unit}"),
                "" if math.isnan(row.ratio) else f"{row.ratio:.2f}",
                number(row.limit),
                "" if math.isnan(slower := row.times_slower(row.limit)) else f"{slower:.2f}",
                row.goal,
                {True: "met", False: "MISSED", None: ""}[row.met if judged else None],
                number(earlier),
                "SLOWER" if row.times_slower(earlier) > SLOWER else "",
            ]
        )
    used = [i for i in range(len(cells[0])) if any(line[i] for line in cells[1:])]
    left = [used.index(i) for i in (0, 3, 8, 9, 11) if i in used]
    return align_columns([[line[i] for i in used] for line in cells], left=left)


def number(value: float, unit: str = "") -> str:
    """Return a value with three digits and its unit, or '' for NaN."""
    if math.isnan(value):
        return ""
    return (f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}") + unit


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 itself: imitated, a clip may take a minute."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(text.split())


def machine() -> dict[str, Any]:
    """Where and when: processor, cores, load, versions."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        model = platform.processor()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def in_turns(sides: Sequence[Callable[[], object]], rounds: int = 3) -> list[tuple[float, float]]:
    """The best wall and processor seconds of each side, which take turns: noise only adds."""
    best = [(math.inf, math.inf)] * len(sides)
    for _ in range(rounds):
        for i, side in enumerate(sides):
            started, cpu = time.perf_counter(), processor_seconds()
            side()
            spent = time.perf_counter() - started, processor_seconds() - cpu
            best[i] = min(best[i][0], spent[0]), min(best[i][1], spent[1])
    return best


def write_weights(names: Iterable[str], folder: Path, known: Path | None = None) -> dict[str, Path]:
    """Write weight files of nets: those in the folder `known`, or random ones, which cost as much.

    Known ones may be float16, so that they can be carried.
    """
    import numpy as np

    from mvemo.extract.nets import build_net

    files = {}
    for name in names:
        files[name] = folder / f"{name}.npz"
        if known is not None and (known / f"{name}.npz").is_file():
            with np.load(known / f"{name}.npz") as saved:
                values = {key: np.float32(saved[key]) for key in saved.files}
        else:
            values = {key: value.numpy() for key, value in build_net(name, 1).state_dict().items()}
        np.savez(files[name], **values)
    return files


def processor_seconds() -> float:
    """Of this process and those that it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


class Stopwatch(threading.local):
    """Processor seconds of named parts; the time of a part within another counts only once.

    Each thread has running parts of its own.
    """

    seconds: dict[str, float]

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds  # of all threads
        self._running = [""]
        self._since = time.thread_time()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._count()
        self._running.append(name)
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def _count(self) -> None:
        now = time.thread_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count the calls of a function as a part; of a generator only its own steps."""
        function = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            with self.part(part):
                return function(*arguments, **options)

        def stepped(*arguments: Any, **options: Any) -> Iterator[Any]:
            values, end = function(*arguments, **options), object()
            while True:
                with self.part(part):
                    value = next(values, end)
                if value is end:
                    return
                yield value

        setattr(owner, name, stepped if isgeneratorfunction(function) else called)
