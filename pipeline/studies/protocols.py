"""Study of the protocols: the same clips, folds and heads under each protocol.

PL20 fine-tunes its nets on the clips that its heads are then tested on (3.3 and 3.4). This
study measures how much that adds to a score. Rows with shuffled labels show it best, since
there is nothing to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvemo.extract.pretrained import find_weights
from mvemo.extract.settings import FETCHED, NetSettings
from mvemo.fuse.report.published import FUSIONS, PL20_TABLE_3, SOURCES
from mvemo.manifests import Manifest
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.comparison import (
    INTERVAL_NOTE,
    OTHERS,
    Compared,
    Variant,
    compare,
    comparison_table,
    difference,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import (
    Study,
    StudyMedia,
    matches_pl20,
    with_permuted_labels,
)
from mvemo.pipeline.studies.embedded import HeadJob, HeadPredictor
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import PERCENT, Column

# Names of protocols in the table.
SHARED = "shared: nets saw the test clips"
CROSSFIT = "crossfit: nets never saw them"
FROZEN = "frozen: nothing is trained here"
SHUFFLED = "shuffled labels"
# Frozen nets of the profile demo, without i3d, which at its published size takes several minutes
# of processor time for the demo's clips of 4 s.
DEMO_FROZEN = ("musicnn", "effnet")


@dataclass(frozen=True)
class _Row:
    """Row of the table: a protocol, its nets, and true or shuffled labels."""

    name: str
    protocol: str
    plans: tuple[NetSettings, ...]
    shuffled: bool = False


def default_frozen(profile: str) -> tuple[str, ...] | None:
    """Return the nets of the row ``frozen``, fewer for the profile ``demo``; None for all."""
    return DEMO_FROZEN if profile == "demo" else None


def run_protocols(
    study: Study, *, nets: Sequence[str] = (), frozen: Sequence[str] | None = None
) -> StudyResult:
    """Score one head on all nets' embeddings under ``shared``, ``crossfit`` and ``frozen``.

    ``shared`` and ``crossfit`` also run with shuffled labels. Folds and heads are the same
    in all rows.
    """
    asked = [study.plan(net) for net in nets or study.settings.extract.nets]
    public = frozen_plans(frozen)
    media = study.media([*asked, *public])
    notes: list[str] = []
    trained, untrained = (_readable(media, plans, notes) for plans in (asked, public))
    if not trained:
        raise BadOption(f"{study.manifest.name}: no clip has sound or pictures for these nets")
    rows = [_Row(SHARED, "shared", trained), _Row(CROSSFIT, "crossfit", trained)]
    if untrained:
        rows.append(_Row(FROZEN, "frozen", untrained))
    else:
        notes.append(
            "There is no frozen row: no public weights are here that clips can be read for; "
            "'mvemo weights get all' fetches them."
        )
    rows += [
        _Row(f"{SHUFFLED}, shared", "shared", trained, shuffled=True),
        _Row(f"{SHUFFLED}, crossfit", "crossfit", trained, shuffled=True),
    ]
    compared = _compare(study, media, rows)
    return _result(study, media, compared, notes)


def frozen_plans(names: Sequence[str] | None = None) -> list[NetSettings]:
    """Return the nets of the profile ``pretrained`` whose weights have been fetched."""
    settings = load_settings("pretrained")
    known = settings.extract.nets
    for name in names or ():
        if name not in known:
            raise BadOption(f"--frozen {name}: profile pretrained has {', '.join(known)}")
    return [
        replace(settings.nets[net], weights=FETCHED)
        for net in known
        if (names is None or net in names) and find_weights(net) is not None
    ]


def _readable(
    media: StudyMedia, plans: Sequence[NetSettings], notes: list[str]
) -> tuple[NetSettings, ...]:
    """Return the plans whose input some clip has, and add a note on the others."""
    absent = [plan.name for plan in plans if not media.usable(plan).any()]
    if absent:
        notes.append(f"No clip has what is read by {', '.join(absent)}, which are left out.")
    return tuple(plan for plan in plans if plan.name not in absent)


def _compare(study: Study, media: StudyMedia, rows: Sequence[_Row]) -> list[Compared]:
    """Compare all rows on the same folds; shuffled rows are scored on shuffled labels."""
    seed = study.settings.extract.run.seed
    # Differs from the shuffle of --permute-labels, which may be given as well.
    shuffled = with_permuted_labels(media.manifest, seed + 1)
    folds = study.folds_of_runs()
    compared = []
    for manifest, wanted in ((media.manifest, False), (shuffled, True)):
        variants = [_variant(study, media, row, manifest) for row in rows if row.shuffled == wanted]
        compared += compare(study, variants, manifest, folds)
    return compared


def _variant(study: Study, media: StudyMedia, row: _Row, manifest: Manifest) -> Variant:
    predict = HeadPredictor(study, media, HeadJob(row.plans, row.protocol, manifest, row.name))
    # PL20's figure holds for its own protocol, labels and four nets.
    pl20s = {plan.name for plan in row.plans} == set(FUSIONS["integrated"])
    printed = row.name == SHARED and pl20s and matches_pl20(study, *row.plans)
    known = PL20_TABLE_3["integrated"].accuracy if printed else None
    cells = (row.name, ", ".join(plan.name for plan in row.plans))
    return Variant(row.name, predict, cells, (known,), known)


def _result(
    study: Study, media: StudyMedia, compared: list[Compared], notes: Sequence[str]
) -> StudyResult:
    labels = Labels.of(media.manifest)
    table = comparison_table(
        "scores",
        "One head on the embeddings of all nets, by protocol",
        compared,
        labels=labels,
        first=(Column("protocol"), Column("nets")),
        measures=("score", "low", "high", "sd", OTHERS, "baseline"),
        published=(Column("PL20 Table 3, integrated", PERCENT, published=True),),
    )
    bars = [each.bar() for each in compared]
    title = f"{labels.task.primary_title.capitalize()} by protocol: same clips, folds and heads"
    return StudyResult(
        name="protocols",
        title="How far the protocol flatters",
        tables=(table,),
        plots=(score_plot("scores", title, bars, compared, labels),),
        notes=(
            INTERVAL_NOTE,
            *_findings(study, labels, compared),
            *notes,
            *divergence_notes(compared),
        ),
        sources=(SOURCES["PL20"],),
    )


def _findings(study: Study, labels: Labels, compared: Sequence[Compared]) -> list[str]:
    """Return notes on the difference between shared and crossfit, by kind of labels."""
    of_name = {each.variant.name: each for each in compared}
    notes = []
    for what, shared, crossfit in (
        ("true labels", SHARED, CROSSFIT),
        (SHUFFLED, f"{SHUFFLED}, shared", f"{SHUFFLED}, crossfit"),
    ):
        pair = (of_name[shared], of_name[crossfit])
        if what == SHUFFLED:
            seed = study.settings.extract.run.seed
            labels = Labels.of(with_permuted_labels(study.manifest, seed + 1))
        gap = difference(labels, *pair, study.folds_of_runs())
        if gap is not None:
            value, low, high = gap.texts(labels)
            notes.append(
                f"Of {what}, nets that saw the test clips add {value} to "
                f"{labels.task.primary_title} (95 % interval {low} to {high})."
            )
    return notes
