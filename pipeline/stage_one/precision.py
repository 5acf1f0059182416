"""Choice of the numeric precision of a run, measured once per processor."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mvemo.cache.spec import digest_of
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import pick_device, resolve_precision
from mvemo.extract.training.ranks import current_ranks
from mvemo.extract.training.timing import measure_net
from mvemo.manifests.files import parse_json, write_json
from mvemo.pipeline.provenance import versions
from mvemo.pipeline.settings import Settings

FILE = "precision.json"
# Largest time of bf16, as a share of float32, at which bf16 is chosen despite its rounding.
MOST_TIME = 0.9
_CPU_FACTS = Path("/proc/cpuinfo")


def choose_precision(
    settings: Settings, plans: Sequence[NetSettings], work: Path, *, keep: bool = True
) -> tuple[Settings, str]:
    """Replace the precision ``auto`` by the faster one; return a note on what was measured.

    A GPU uses bf16. On a CPU with bf16 instructions one pass of each net is timed in both
    precisions. Other CPUs use float32, and so do several ranks, which must agree. The timing is
    stored in `work` if `keep`, so that the same run chooses the same precision again.
    """
    run, device = settings.extract.run, pick_device(settings.extract.run.device)
    note, precision = "", resolve_precision(run.precision, device)
    cpu = _bf16_processor()
    if run.precision == "auto" and device.type == "cpu" and cpu and current_ranks().count == 1:
        seconds = _measured(settings, plans, work / FILE, cpu, keep=keep)
        faster = seconds["bf16"] <= MOST_TIME * seconds["float32"]
        precision = "bf16" if faster else "float32"
        note = (
            f"extract.precision=auto is {precision}: a clip takes the nets {seconds['bf16']:.2g} s "
            f"in bf16 and {seconds['float32']:.2g} s in float32 on this processor."
        )
    run = replace(run, precision=precision)
    return replace(settings, extract=replace(settings.extract, run=run)), note


def _measured(
    settings: Settings, plans: Sequence[NetSettings], path: Path, cpu: str, *, keep: bool
) -> dict[str, float]:
    """Return seconds per clip by precision, from `path` if it has the same nets and processor."""
    run = settings.extract.run
    facts = [[plan.record() for plan in plans], run.protocol, cpu, versions().get("torch")]
    key = digest_of({"measured": facts})
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = parse_json(path.read_bytes())
        if kept["key"] == key:
            return {name: float(kept["seconds"][name]) for name in ("float32", "bf16")}
    seconds = {
        name: sum(
            plan.view.views
            * measure_net(plan, replace(run, precision=name), settings.descriptors).seconds
            for plan in plans
        )
        for name in ("float32", "bf16")
    }
    if keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"key": key, "seconds": seconds})
    return seconds


def _bf16_processor() -> str:
    """Return the name of this CPU if it has bf16 instructions, or ''."""
    try:
        text = _CPU_FACTS.read_text()
    except OSError:
        return ""
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        facts[name.strip()] = value.strip()
    if {"avx512_bf16", "amx_bf16"}.isdisjoint(facts.get("flags", "").split()):
        return ""
    return facts.get("model name", "a processor")
