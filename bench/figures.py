"""What all benches share: rows of one table, kept as JSON, and the options to ask for them."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mvemo.manifests.text_table import align_columns


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
    """

    what: str
    value: float
    unit: str
    alternative: str = ""
    other: float = math.nan
    ratio: float = math.nan
    goal: str = ""

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


def table_lines(rows: Sequence[Row], *, judged: bool) -> list[str]:
    """An aligned table; `judged` says whether goals are met, which small sizes do not tell."""
    cells = [("measured", "value", "alternative", "its value", "ratio", "goal", "")]
    for row in rows:
        met = {True: "met", False: "MISSED", None: ""}[row.met if judged else None]
        other = "" if math.isnan(row.other) else f"{_number(row.other)} {row.unit}"
        ratio = "" if math.isnan(row.ratio) else f"{row.ratio:.2f}"
        value = f"{_number(row.value)} {row.unit}"
        cells.append((row.what, value, row.alternative, other, ratio, row.goal, met))
    return align_columns(cells, left=(0, 2, 5, 6))


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


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


def processor_seconds() -> float:
    """Of this process and those that it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))
