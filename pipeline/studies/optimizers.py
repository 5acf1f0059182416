"""Study T1: optimizers of the unimodal nets (PL20 Table 2, Z22 Table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvemo.fuse.report.published import PL20_TABLE_2, SOURCES, Z22_TABLE_1, Published
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.comparison import (
    INTERVAL_NOTE,
    OTHERS,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_pl20
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column

# Net -> optimizer -> (learning rate, momentum), from PL20 Table 2.
RATES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "music1d": {"Adam": (1e-3, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
    "music2d": {"Adam": (1e-3, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
    "c3d": {"Adam": (1e-5, 0.0), "SGD": (1e-5, 0.0), "RMSprop": (1e-3, 0.0)},
    "i3d": {"Adam": (1e-4, 0.0), "SGD": (1e-3, 0.5), "RMSprop": (1e-3, 0.0)},
}
NETS = tuple(RATES)
# Four nets, three optimizers and six folds take a quarter of an hour of one processor with the
# demo's 20 or more epochs.
DEMO_EPOCHS = 12
OPTIMIZERS = ("Adam", "SGD", "RMSprop")
_FIRST = (Column("net"), Column("optimizer"), Column("rate"), Column("momentum"))
_PUBLISHED = tuple(
    Column(f"{what}, {source}", kind, published=True)
    for source in ("PL20", "Z22")
    for what, kind in (("accuracy", PERCENT), ("F1", NUMBER), ("AUC", NUMBER))
)


def default_epochs(profile: str) -> int:
    """Return the maximum number of epochs of each net; 0 for the profile's own.

    Examples
    --------
    >>> default_epochs("paper"), default_epochs("demo")
    (0, 12)
    """
    return DEMO_EPOCHS if profile == "demo" else 0


def run_optimizers(
    study: Study, *, nets: Sequence[str] = NETS, rate_scale: float = 1.0, epochs: int = 0
) -> StudyResult:
    """Cross-fit each net with each optimizer at the papers' rates, times `rate_scale`."""
    for net in nets:
        if net not in RATES:
            raise BadOption(f"--nets {net}: PL20 Table 2 has rates for {', '.join(RATES)}")
    if not rate_scale > 0:
        raise BadOption(f"--rate-scale {rate_scale}: it must be above 0")
    media = study.media([study.plan(net) for net in nets])
    notes = [INTERVAL_NOTE]
    if rate_scale != 1.0:
        notes.append(f"All rates are {rate_scale:g} times the papers'.")
    if epochs:
        notes.append(f"Nets are trained for {epochs} epochs at most.")
    variants: list[Variant] = []
    for net in nets:
        usable = media.usable(study.plan(net))
        if not usable.any():
            reason = next(filter(None, map(media.reason, media.manifest.clip_ids)), "no clips")
            notes.append(f"{net} is left out: no clip has what it is given ({reason}).")
            continue
        notes += media.left_out(usable, f"clips of {net}")
        variants += [_variant(study, media, net, name, rate_scale, epochs) for name in OPTIMIZERS]
    if not variants:
        raise BadOption(f"{study.manifest.name}: no clip has sound or pictures for these nets")
    compared = compare(study, variants, media.manifest, study.folds_of_runs())
    labels = Labels.of(media.manifest)
    table = comparison_table(
        "scores",
        "Scores by optimizer, out of fold (as PL20 Table 2, Z22 Table 1)",
        compared,
        labels=labels,
        first=_FIRST,
        measures=("score", "low", "high", "sd", OTHERS, "baseline"),
        published=_PUBLISHED,
    )
    bars = [each.bar() for each in compared]
    return StudyResult(
        name="optimizers",
        title="Optimizers of the unimodal nets",
        tables=(table,),
        plots=(score_plot("scores", "Scores by net and optimizer", bars, compared, labels),),
        notes=(*notes, *divergence_notes(compared)),
        sources=tuple(SOURCES.values()),
    )


def _variant(
    study: Study, media: StudyMedia, net: str, optimizer: str, rate_scale: float, epochs: int
) -> Variant:
    """Return a net with one of the optimizers."""
    rate, momentum = RATES[net][optimizer]
    usual = study.settings.nets[net].train.epochs
    plan = study.plan(
        net,
        optimizer=optimizer.lower(),
        lr=rate * rate_scale,
        momentum=momentum,
        epochs=min(usual, epochs) if epochs else usual,
    )
    printed = rate_scale == 1.0 and matches_pl20(study, plan)
    pl20 = PL20_TABLE_2[optimizer][net] if printed else None
    z22 = Z22_TABLE_1.get(optimizer, {}).get(net) if printed else None
    return Variant(
        f"{net}, {optimizer}",
        NetPredictor(study, media, plan, title=f"{net}, {optimizer}"),
        cells=(net, optimizer, f"{plan.train.lr:g}", f"{momentum:g}" if optimizer == "SGD" else ""),
        published=(*_printed(pl20), *_printed(z22)),
        printed_accuracy=None if pl20 is None else pl20.accuracy,
    )


def _printed(known: Published | None) -> tuple[Cell, Cell, Cell]:
    return (None, None, None) if known is None else (known.accuracy, known.f1, known.roc_auc)
