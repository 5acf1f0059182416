"""The part of the report that says how far its figures can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvemo.fuse.metrics.calibration import reliability
from mvemo.fuse.report.summary import (
    fraction,
    over_folds,
    p_text,
    percent,
    spread,
)
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.tasks.base import Task

# Columns of the table of intervals.
_INTERVALS = {
    "accuracy": "accuracy, %",
    "f1_macro": "macro F1",
    "roc_auc_macro_ovr": "AUC, folds",
    "roc_auc_macro_ovr_pooled": "AUC, pooled",
    "ece": "ECE",
    "brier": "Brier",
    "log_loss": "log loss",
}


def interval_text(model: ModelResult, score: str = "accuracy", *, percents: bool = True) -> str:
    """A 95 % interval in percent, ``63-81``, or in fractions; empty where there is none."""
    return _span(model.intervals.get(score), percents)


def _span(ends: tuple[float, float] | None, percents: bool) -> str:
    if ends is None or not np.isfinite(ends).all():
        return ""
    if percents:
        return f"{100 * ends[0]:.0f}-{100 * ends[1]:.0f}"
    return f"{fraction(ends[0])} to {fraction(ends[1])}"


def trust_values(results: Results) -> dict[str, Any]:
    """What the report's template ``trust.html`` shows, empty lists where there is nothing.

    Scores are the task's headline as text: accuracy in percent, others as numbers.
    """
    percents = results.task.in_percent
    title = results.task.primary_title
    show = percent if percents else fraction
    models: Sequence[ModelResult] = results.models
    of_classes: dict[str, Any] = {"interval_titles": [], "interval_rows": []}
    if results.task.decides_songs:
        shown = [name for name in _INTERVALS if any(name in m.intervals for m in results.models)]
        of_classes = {
            "interval_titles": [_INTERVALS[name] for name in shown],
            "interval_rows": [
                (m.name, [interval_text(m, name, percents=name == "accuracy") for name in shown])
                for m in results.models
            ],
            "majority_interval": _span(results.baseline.intervals.get("accuracy"), True),
            "groups": group_errors(results),
        }
    return {
        "intervals": any(model.intervals for model in models),
        "times": max(len(results.repeats), 1),
        "over": over_folds(results),
        "title": title,
        "Title": title[0].upper() + title[1:],
        "unit": f"{title} in %" if percents else title,
        "difference": "difference, points" if percents else "difference",
        "tags": results.task.name == "multilabel",
        "comparisons": [
            {
                "model": c.model,
                "single": c.single,
                "difference": f"{100 * c.mean:+.1f}" if percents else f"{c.mean:+.3f}",
                "interval": _difference(c.interval, percents),
                "t": c.t,
                "p": p_text(c.p),
                "p_holm": p_text(c.p_holm),
                "sure": bool(np.isfinite(c.p_holm) and c.p_holm < 0.05),
            }
            for c in results.comparisons
        ],
        "without": [
            {
                "name": model.name,
                "both": show(model.without_modality["none"]),
                "audio": show(model.without_modality.get("audio", float("nan"))),
                "video": show(model.without_modality.get("video", float("nan"))),
                "n_fallback": model.n_fallback,
            }
            for model in models
            if model.without_modality
        ],
        "calibration": [
            {"name": model.name, **model.calibration} for model in models if model.calibration
        ],
        "scaled": any("ece_scaled" in model.calibration for model in models),
        "repeats": [
            {
                "name": model.name,
                "means": [
                    show(spread(results.primary_per_fold(r.models[i])).mean)
                    for r in results.repeats
                ],
            }
            for i, model in enumerate(models)
        ]
        if results.repeats
        else [],
        "learning_curve": dict(results.learning_curve),
        **of_classes,
    }


def _difference(ends: tuple[float, float], percents: bool) -> str:
    if not np.isfinite(ends).all():
        return ""
    if percents:
        return f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}"
    return f"{ends[0]:+.3f} to {ends[1]:+.3f}"


def group_errors(results: Results, limit: int = 15) -> list[dict[str, Any]]:
    """Groups of two clips or more that are most often wrong, over all models."""
    if not results.models:
        return []
    predicted = np.stack([model.y_pred for model in results.models])
    there = predicted >= 0
    wrong = there & (predicted != results.y_true)
    names, code = np.unique(np.array(results.groups, dtype=np.str_), return_inverse=True)
    clips = np.bincount(code)
    asked = np.bincount(code, weights=there.sum(axis=0))
    missed = np.bincount(code, weights=wrong.sum(axis=0))
    share = np.where(asked > 0, missed / np.maximum(asked, 1), 0.0)
    order = [i for i in np.lexsort((-clips, -share)) if clips[i] > 1 and missed[i] > 0]
    return [
        {"name": str(names[i]), "clips": int(clips[i]), "wrong": float(share[i])}
        for i in order[:limit]
    ]


def reliability_figure(results: Results, model: ModelResult) -> str:
    """Reliability diagram of one model: share that is right against probability, by bins.

    Of the predicted class; of tags over all pairs of clip and tag.
    """
    from mvemo.fuse.report.figures import GRID, INK, WIDE, drawing

    tags = results.task.name == "multilabel"
    labels = results.y_true.astype(np.int64)
    held = reliability(labels, model.outputs)
    there = held.count > 0
    with drawing(WIDE, 0.9 * WIDE) as (figure, finish):
        ax = figure.add_subplot()
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.bar(
            held.edges[:-1][there],
            held.accuracy[there],
            width=np.diff(held.edges)[there],
            align="edge",
            color="#1d5fa8",
            alpha=0.35,
        )
        size = 12 + 160 * held.count[there] / max(int(held.count.sum()), 1)
        ax.scatter(held.confidence[there], held.accuracy[there], s=size, color="#1d5fa8", zorder=3)
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
        ax.set_xlabel("probability of the tag" if tags else "probability of the predicted class")
        ax.set_ylabel("share that has it" if tags else "share that is right")
        ax.grid(**GRID)
        return finish(f"Reliability of {model.name}")


def learning_curve_figure(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], task: Task
) -> str:
    """The headline of each model against the number of training clips."""
    from mvemo.fuse.report.figures import COLOURS, GRID, WIDE, drawing

    factor = 100.0 if task.in_percent else 1.0
    with drawing(WIDE, WIDE + 0.18 * len(curves)) as (figure, finish):
        ax = figure.add_subplot()
        for i, (name, points) in enumerate(curves.items()):
            _, clips, scores = np.array(points).T
            ax.plot(
                clips,
                factor * scores,
                marker="o",
                markersize=3,
                linewidth=1.2,
                color=COLOURS[i % len(COLOURS)],
                linestyle="--" if "+" not in name and name != "integrated" else "-",
                label=name,
            )
        ax.set_xlabel("training clips of a head (mean over folds)")
        ax.set_ylabel("accuracy (%)" if factor > 1 else task.primary_title)
        if factor > 1:
            ax.set_ylim(bottom=0)
        ax.grid(**GRID)
        figure.legend(loc="outside lower center", ncols=2)
        return finish("Learning curves")
