"""The part of the report that says how far its figures can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mvemo.fuse.calibration import reliability
from mvemo.fuse.results import ModelResult, Results
from mvemo.fuse.summary import p_text, predicted_classes, spread


def interval_text(model: ModelResult, score: str = "accuracy") -> str:
    """A 95 % interval of a fraction in percent, ``63-81``; empty where there is none."""
    if score not in model.intervals:
        return ""
    low, high = model.intervals[score]
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    return f"{100 * low:.0f}-{100 * high:.0f}"


def trust_values(results: Results) -> dict[str, Any]:
    """What the report's template ``trust.html`` shows, empty lists where there is nothing."""
    return {
        "intervals": any(model.intervals for model in results.models),
        "comparisons": [
            {
                "model": c.model,
                "single": c.single,
                "points": 100 * c.mean,
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
                "both": spread(model.accuracy_per_fold).mean,
                "audio": model.without.get("audio", float("nan")),
                "video": model.without.get("video", float("nan")),
                "stood_in": model.stood_in,
            }
            for model in results.models
            if model.without
        ],
        "calibration": [
            {"name": model.name, **model.calibration}
            for model in results.models
            if model.calibration
        ],
        "scaled": any("ece_scaled" in model.calibration for model in results.models),
        "repeats": [
            {
                "name": model.name,
                "means": [
                    spread(r.models[i].accuracy_per_fold).mean for r in (results, *results.repeats)
                ],
            }
            for i, model in enumerate(results.models)
        ]
        if results.repeats
        else [],
        "learning_curve": dict(results.learning_curve),
        "groups": group_errors(results),
    }


def group_errors(results: Results, limit: int = 15) -> list[dict[str, Any]]:
    """Groups of two clips or more that are most often wrong, over all models."""
    if not results.models:
        return []
    predicted = np.stack([predicted_classes(model) for model in results.models])
    there = predicted >= 0
    wrong = there & (predicted != results.labels)
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
    """Reliability diagram of one model: accuracy against stated probability, by bins."""
    from mvemo.fuse.figures import GRID, INK, WIDE, drawing

    held = reliability(results.labels, model.probabilities)
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
        ax.set_xlabel("probability of the predicted class")
        ax.set_ylabel("share that is right")
        ax.grid(**GRID)
        return finish(f"Reliability of {model.name}")


def learning_curve_figure(curves: dict[str, Sequence[tuple[float, float, float]]]) -> str:
    """Accuracy of each model against the number of training clips."""
    from mvemo.fuse.figures import COLOURS, GRID, WIDE, drawing

    with drawing(WIDE, WIDE + 0.18 * len(curves)) as (figure, finish):
        ax = figure.add_subplot()
        for i, (name, points) in enumerate(curves.items()):
            _, clips, scores = np.array(points).T
            ax.plot(
                clips,
                100 * scores,
                marker="o",
                markersize=3,
                linewidth=1.2,
                color=COLOURS[i % len(COLOURS)],
                linestyle="--" if "+" not in name and name != "integrated" else "-",
                label=name,
            )
        ax.set_xlabel("training clips of a head (mean over folds)")
        ax.set_ylabel("accuracy (%)")
        ax.set_ylim(bottom=0)
        ax.grid(**GRID)
        figure.legend(loc="outside lower center", ncols=2)
        return finish("Learning curves")
