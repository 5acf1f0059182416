"""T1: optimizers of the unimodal nets (PL20 Table 2, Z22 Table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mvemo.fuse.report.published import PL20_TABLE_2, SOURCES, Z22_TABLE_1, Published
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.core import Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.output import (
    NUMBER,
    PERCENT,
    Cell,
    Column,
    Plot,
    StudyResult,
    Table,
)
from mvemo.pipeline.studies.plots import Bar, accuracy_bars

# Net -> optimizer -> learning rate and momentum, as PL20 Table 2 prints them.
RATES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "music1d": {"Adam": (1e-3, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
    "music2d": {"Adam": (1e-3, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
    "c3d": {"Adam": (1e-5, 0.0), "SGD": (1e-5, 0.0), "RMSprop": (1e-3, 0.0)},
    "i3d": {"Adam": (1e-4, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
}
NETS = tuple(RATES)
OPTIMIZERS = ("Adam", "SGD", "RMSprop")


def run_optimizers(
    study: Study, *, nets: Sequence[str] = NETS, rate_scale: float = 1.0
) -> StudyResult:
    """Cross-fit each net with each optimizer at the papers' rates.

    Parameters
    ----------
    study
        Of the clips.
    nets
        Of `NETS`; those whose modality no clip has are left out, with a note.
    rate_scale
        Multiplies all rates, which are the papers' for nets of full width.
    """
    for net in nets:
        if net not in RATES:
            raise BadOption(f"--nets {net}: PL20 Table 2 has rates for {', '.join(RATES)}")
    if not rate_scale > 0:
        raise BadOption(f"--rate-scale {rate_scale}: it must be above 0")
    media = study.media([study.plan(net) for net in nets])
    labels = labels_of(media)
    folds = [study.folds(run) for run in range(study.runs)]
    notes = ["low and high: 95 % interval over groups. sd: over runs, or folds of one run."]
    if rate_scale != 1.0:
        notes.append(f"All rates are {rate_scale:g} times the papers'.")
    rows: list[tuple[Cell, ...]] = []
    bars: list[Bar] = []
    majority = math.nan
    for net in nets:
        if not media.usable(study.plan(net)).any():
            reason = next(iter(media.problems.values()), "no clips")
            notes.append(f"{net} is left out: no clip has what it is given ({reason}).")
            continue
        notes += media.left_out(media.usable(study.plan(net)), f"clips of {net}")
        for name in OPTIMIZERS:
            rate, momentum = RATES[net][name]
            plan = study.plan(net, optimizer=name.lower(), lr=rate * rate_scale, momentum=momentum)
            runs = [
                cross_fit(study, media, plan, folds[run], run=run, title=f"{net}, {name}")
                for run in range(study.runs)
            ]
            found = score(labels, [r.probabilities for r in runs], folds, study.manifest.groups)
            pl20 = PL20_TABLE_2[name][net]
            z22 = Z22_TABLE_1.get(name, {}).get(net)
            rows.append(
                (
                    net,
                    name,
                    f"{plan.train.lr:g}",
                    f"{momentum:g}" if name == "SGD" else "",
                    found.accuracy,
                    found.low,
                    found.high,
                    found.sd,
                    found.f1,
                    found.auc,
                    found.majority,
                    *_printed(pl20),
                    *_printed(z22),
                )
            )
            bars.append(Bar(f"{net}, {name}", found.accuracy, found.low, found.high, pl20.accuracy))
            majority = found.majority
    if not rows:
        raise BadOption(f"{study.manifest.name}: no clip has sound or pictures for these nets")
    return StudyResult(
        name="optimizers",
        title="Optimizers of the unimodal nets",
        tables=(
            Table(
                "scores",
                "Accuracy, F1 and AUC by optimizer, out of fold (as PL20 Table 2, Z22 Table 1)",
                (
                    Column("net"),
                    Column("optimizer"),
                    Column("rate"),
                    Column("momentum"),
                    Column("accuracy", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("sd", PERCENT),
                    Column("macro F1", NUMBER),
                    Column("AUC", NUMBER),
                    Column("majority", PERCENT),
                    *(
                        Column(f"{what}, {source}", kind, published=True)
                        for source in ("PL20", "Z22")
                        for what, kind in (("accuracy", PERCENT), ("F1", NUMBER), ("AUC", NUMBER))
                    ),
                ),
                tuple(rows),
            ),
        ),
        plots=(
            Plot(
                "scores",
                "Accuracy by net and optimizer",
                lambda axes: accuracy_bars(axes, bars, majority),
                (6.4, 1.6 + 0.32 * len(bars)),
            ),
        ),
        notes=tuple(notes),
        sources=tuple(SOURCES.values()),
    )


def _printed(known: Published | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if known is None else (known.accuracy, known.f1, known.roc_auc)
