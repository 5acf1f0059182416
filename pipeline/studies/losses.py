"""L1 to L4 compared on one net (J22 2.4)."""

from __future__ import annotations

from mvemo.extract.training.losses import LOSSES
from mvemo.fuse.report import published_j22 as j22
from mvemo.pipeline.studies.core import Study, cross_fit, labels_of, score
from mvemo.pipeline.studies.output import PERCENT, Cell, Column, Plot, StudyResult, Table
from mvemo.pipeline.studies.plots import Bar, accuracy_bars

NAMES = {
    "softmax": "L1 softmax",
    "angular": "L2 angular softmax",
    "centre": "L3 centre softmax",
    "improved-centre": "L4 improved centre softmax",
}
# Wen et al. 2016, where the centre loss is from; J22 gives none.
CENTRE_TAU = 0.003


def run_losses(study: Study, *, net: str = "crnn", centre_tau: float = CENTRE_TAU) -> StudyResult:
    """Cross-fit one net with each loss; all else is the same.

    Parameters
    ----------
    study
        Of the clips.
    net
        Which.
    centre_tau
        tau of L3, whose term grows with the square of the features. L4's is the net's own
        setting.
    """
    tau = study.plan(net).train.tau
    plans = {
        loss: study.plan(net, loss=loss, tau=centre_tau if loss == "centre" else tau)
        for loss in LOSSES
    }
    media = study.media(list(plans.values()))
    folds = [study.folds(run) for run in range(study.runs)]
    rows: list[tuple[Cell, ...]] = []
    bars = []
    majority = 0.0
    for loss, plan in plans.items():
        runs = [
            cross_fit(study, media, plan, folds[run], run=run, title=f"{net}, {loss}")
            for run in range(study.runs)
        ]
        found = score(
            labels_of(media), [r.probabilities for r in runs], folds, study.manifest.groups
        )
        # J22's one figure is of its net with L4.
        known = j22.FIGURE_8["crnn"] if (net, loss) == ("crnn", "improved-centre") else None
        shown_tau = plan.train.tau if "centre" in loss else None
        rows.append(
            (
                NAMES[loss],
                shown_tau,
                found.accuracy,
                found.low,
                found.high,
                found.sd,
                found.f1,
                found.auc,
                found.majority,
                known,
            )
        )
        bars.append(Bar(NAMES[loss], found.accuracy, found.low, found.high, known))
        majority = found.majority
    return StudyResult(
        name="losses",
        title=f"Losses of {net}",
        tables=(
            Table(
                "scores",
                f"{net} with the losses of J22 2.4, out of fold",
                (
                    Column("loss"),
                    Column("tau", "number"),
                    Column("accuracy", PERCENT),
                    Column("low", PERCENT),
                    Column("high", PERCENT),
                    Column("sd", PERCENT),
                    Column("macro F1", "number"),
                    Column("AUC", "number"),
                    Column("majority", PERCENT),
                    Column("J22 Fig. 8", PERCENT, published=True),
                ),
                tuple(rows),
            ),
        ),
        plots=(
            Plot(
                "scores",
                f"Accuracy of {net} by loss",
                lambda axes: accuracy_bars(axes, bars, majority),
                (6.4, 3.4),
            ),
        ),
        notes=(
            "low and high: 95 % interval over groups. sd: over runs, or folds of one run.",
            *media.left_out(media.usable(plans["softmax"])),
        ),
        sources=(j22.SOURCE,),
    )
