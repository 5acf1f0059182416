"""Study of the four losses for classes on one net (J22 2.4)."""

from __future__ import annotations

from mvemo.extract.settings import LOSSES, NetSettings
from mvemo.fuse.report.published import J22 as j22
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
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.segments import SEGMENT_SECONDS, Cut, cut_study
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Column

NAMES = {
    "softmax": "softmax",
    "angular": "angular softmax",
    "centre": "centre softmax",
    "improved-centre": "improved centre softmax",
}
# From Wen et al. 2016, the source of the centre loss; J22 gives no value.
CENTRE_TAU = 0.003


def run_losses(
    study: Study,
    *,
    net: str = "crnn",
    centre_tau: float = CENTRE_TAU,
    seconds: float = SEGMENT_SECONDS,
    cut: Cut | None = None,
) -> StudyResult:
    """Cross-fit one net with each loss; everything else is the same.

    The centre loss has its own weight `centre_tau`, since its term grows with the square of
    the features.
    """
    study, notes = cut_study(study, seconds, cut)
    tau = study.plan(net).train.tau
    plans = {
        loss: study.plan(net, loss=loss, tau=centre_tau if loss == "centre" else tau)
        for loss in LOSSES
    }
    media = study.media(list(plans.values()))
    variants = [_variant(study, media, plan) for plan in plans.values()]
    compared = compare(study, variants, media.manifest, study.folds_of_runs())
    labels = Labels.of(media.manifest)
    table = comparison_table(
        "scores",
        f"{net} with the losses of J22 2.4, out of fold",
        compared,
        labels=labels,
        first=(Column("loss"), Column("tau", NUMBER)),
        measures=("score", "low", "high", "sd", OTHERS, "baseline"),
        published=(Column("J22 Fig. 8", PERCENT, published=True),),
    )
    bars = [each.bar() for each in compared]
    return StudyResult(
        name="losses",
        title=f"Losses of {net}",
        tables=(table,),
        plots=(score_plot("scores", f"Accuracy of {net} by loss", bars, compared, labels),),
        notes=(
            INTERVAL_NOTE,
            *notes,
            *media.left_out(media.usable(plans["softmax"])),
            *divergence_notes(compared),
        ),
        sources=(j22.SOURCE,),
    )


def _variant(study: Study, media: StudyMedia, plan: NetSettings) -> Variant:
    """Return the net with one of the losses."""
    loss, tau = plan.train.loss, plan.train.tau
    # J22 has one figure only: its net with the improved centre loss.
    published = (plan.name, loss) == ("crnn", "improved-centre") and matches_j22(study, plan)
    known = j22.FIGURE_8["crnn"] if published else None
    return Variant(
        NAMES[loss],
        NetPredictor(study, media, plan, title=f"{plan.name}, {loss}"),
        cells=(NAMES[loss], tau if "centre" in loss else None),
        published=(known,),
        printed_accuracy=known,
    )
