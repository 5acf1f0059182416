"""Figures of training: losses of nets by epoch, and learning curves of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mvemo.fuse.report.drawing import COLOURS, GRID, INK, WIDE, Picture, bare, drawing
from mvemo.fuse.report.shown import recommended
from mvemo.fuse.results import Results


def loss_figures(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Picture]:
    """Draw training and validation loss by epoch: one figure per net, one colour per fold.

    `curves` maps ``net@fold`` to lists under ``epoch``, ``train_loss`` and ``val_loss``. A list
    that is absent, has another length or has no finite value is left out.
    """
    nets: dict[str, list[Mapping[str, Sequence[float]]]] = {}
    for key, curve in curves.items():
        net, _, fold = key.rpartition("@")
        nets.setdefault(net or fold, []).append(curve)
    return [Picture(_loss_figure(net, listed), head=net) for net, listed in nets.items()]


def _loss_figure(net: str, curves: Sequence[Mapping[str, Sequence[float]]]) -> str:
    with drawing(3.7, 2.8) as (figure, finish):
        from matplotlib.lines import Line2D

        ax = figure.add_subplot()
        longest = 1.0
        for i, curve in enumerate(curves):
            epochs = np.asarray(curve.get("epoch", ()), dtype=np.float64)
            colour = COLOURS[i % len(COLOURS)]
            for name, dash, width in (("train_loss", (0, (3, 1.5)), 1.0), ("val_loss", "-", 1.5)):
                losses = np.array(
                    [np.nan if v is None else v for v in curve.get(name, ())], dtype=np.float64
                )
                if len(losses) != len(epochs) or not np.isfinite(losses).any():
                    continue
                longest = max(longest, float(epochs.max()))
                # One epoch draws no line, so it gets a marker.
                marker = "." if len(losses) == 1 else ""
                ax.plot(epochs, losses, color=colour, ls=dash, lw=width, marker=marker)
                if name == "val_loss":
                    low = int(np.nanargmin(losses))
                    ax.plot(epochs[low], losses[low], "o", ms=4, color=colour, mew=0)
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="x", integer=True)
        ax.grid(**GRID)
        bare(ax)
        kinds = [
            Line2D([], [], color=INK, ls=(0, (3, 1.5)), lw=1.0, label="training"),
            Line2D([], [], color=INK, lw=1.5, marker="o", ms=4, label="validation, lowest"),
        ]
        figure.legend(handles=kinds, loc="outside lower center", ncols=2, frameon=False)
        what = "one net" if len(curves) == 1 else f"{len(curves)} nets, one colour each"
        return finish(f"Loss by epoch, {net} ({what})")


def learning_curve_figure(results: Results) -> str:
    """Draw the primary metric of each model against the number of training clips.

    A band shows one standard deviation over folds: for every curve if there are at most three,
    otherwise only for the recommended model.
    """
    task, curves = results.task, results.learning_curve
    factor = 100.0 if task.in_percent else 1.0
    top = recommended(results)
    one = top.name if top is not None and top.name in curves else next(iter(curves))
    single = {model.name for model in results.models if len(model.features) == 1}
    # More than three bands hide each other.
    banded = set(curves) if len(curves) <= 3 else {one}
    with drawing(WIDE, WIDE + 0.18 * len(curves)) as (figure, finish):
        ax = figure.add_subplot()
        for i, (name, points) in enumerate(curves.items()):
            _, clips, scores, deviation = np.array(points).T
            if name in banded:
                ax.fill_between(
                    clips,
                    factor * (scores - deviation),
                    factor * (scores + deviation),
                    color=COLOURS[i % len(COLOURS)],
                    alpha=0.16,
                    linewidth=0,
                )
            ax.plot(
                clips,
                factor * scores,
                marker="o",
                markersize=3,
                linewidth=1.2,
                color=COLOURS[i % len(COLOURS)],
                linestyle="--" if name in single else "-",
                label=name,
            )
        ax.set_xlabel("training clips of a head (mean over folds)")
        ax.set_ylabel(f"{task.primary_title} (%)" if task.in_percent else task.primary_title)
        if task.in_percent:
            ax.set_ylim(bottom=0)
        ax.grid(**GRID)
        bare(ax)
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        return finish("Learning curves")
