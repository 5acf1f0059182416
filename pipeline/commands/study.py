"""Commands ``mvemo study``: the papers' tables and figures for the user's own manifest."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mvemo.pipeline.commands.options import comma_separated
from mvemo.pipeline.commands.study_options import (
    conduct,
    cut_options,
    net_option,
    nets_option,
    parse_lengths,
    parse_nets,
    segment_options,
    study_options,
)

if TYPE_CHECKING:
    from mvemo.manifests.segments import Tail


@click.group()
def study() -> None:
    """The papers' tables and figures for your own manifest, group-disjoint.

    Every accuracy is out of fold. The papers' own figures stand next to them, marked
    "published, other data".

    \b
    Example:
      mvemo study baselines clips.csv --out study
    """


@study.command()
@study_options(runs=1)
@click.option(
    "--seconds",
    callback=parse_lengths,
    default="3,5,10,16",
    show_default=True,
    help="Lengths of segments.",
)
@nets_option("cnn,crnn", "Nets on sequences.")
@cut_options
def segments(
    seconds: tuple[float, ...], nets: tuple[str, ...], first: float, tail: Tail, **options: Any
) -> int:
    """Score nets by the length of segments (J22 Tables 1 and 2).

    \b
    Example:
      mvemo study segments clips.csv --out study --seconds 3,5,10
    """
    from mvemo.pipeline.studies.segments import Cut, run_segments

    return conduct(
        lambda s: run_segments(s, seconds=seconds, nets=nets, cut=Cut(first or None, tail)),
        options,
        seconds=seconds,
        nets=nets,
        first=first,
        tail=tail,
    )


@study.command()
@study_options(runs=1)
@net_option("crnn")
@click.option(
    "--centre-tau",
    type=click.FloatRange(min=0),
    default=0.003,
    show_default=True,
    help="Weight of the centres in the centre loss; the improved one takes the net's setting.",
)
@segment_options
def losses(
    net: str, centre_tau: float, seconds: float, first: float, tail: Tail, **options: Any
) -> int:
    """Compare softmax, angular, centre and improved centre loss on one net (J22 2.4).

    \b
    Example:
      mvemo study losses clips.csv --out study --net crnn
    """
    from mvemo.pipeline.studies.losses import run_losses
    from mvemo.pipeline.studies.segments import Cut

    own: dict[str, Any] = {"net": net, "centre_tau": centre_tau, "seconds": seconds}
    cut = Cut(first or None, tail)
    return conduct(
        lambda s: run_losses(s, **own, cut=cut), options, ("multiclass",), **own, cut=asdict(cut)
    )


@study.command()
@study_options(runs=1)
@nets_option("cnn,lightcnn,crnn", "Which.")
@segment_options
def convnets(
    nets: tuple[str, ...], seconds: float, first: float, tail: Tail, **options: Any
) -> int:
    """Compare training and test accuracy and confusion of nets (J22 Tables 3 and 4).

    \b
    Example:
      mvemo study convnets clips.csv --out study --nets cnn,lightcnn
    """
    from mvemo.pipeline.studies.convnets import run_convnets
    from mvemo.pipeline.studies.segments import Cut

    own: dict[str, Any] = {"nets": nets, "seconds": seconds}
    cut = Cut(first or None, tail)
    return conduct(lambda s: run_convnets(s, **own, cut=cut), options, **own, cut=asdict(cut))


@study.command()
@study_options(runs=1)
@net_option("crnn")
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=2500,
    show_default=True,
    help="Steps of the optimizer.",
)
@segment_options
def iterations(
    net: str, iterations: int, seconds: float, first: float, tail: Tail, **options: Any
) -> int:
    """Follow the loss over iterations (J22 Fig. 7), training without the first fold.

    \b
    Example:
      mvemo study iterations clips.csv --out study --iterations 500
    """
    from mvemo.pipeline.studies.iterations import run_iterations
    from mvemo.pipeline.studies.segments import Cut

    own: dict[str, Any] = {"net": net, "iterations": iterations, "seconds": seconds}
    cut = Cut(first or None, tail)
    return conduct(lambda s: run_iterations(s, **own, cut=cut), options, **own, cut=asdict(cut))


@study.command()
@study_options(runs=1)
@nets_option("cnn,lightcnn,crnn", "Nets on sequences; the last is the one that is varied.")
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Length of a segment.")
@click.option(
    "--iterations",
    type=click.IntRange(min=0),
    help="Steps of the optimizer; 0 for the nets' own epochs.  "
    "[default: J22's 2500; 200 with profile demo]",
)
@click.option(
    "--ablations",
    default="alpha,tau,loss",
    show_default=True,
    help="What is varied: the weight of residual phase, tau, the loss; none for nothing.",
)
@cut_options
def j22(
    nets: tuple[str, ...],
    seconds: float,
    iterations: int | None,
    ablations: str,
    first: float,
    tail: Tail,
    **options: Any,
) -> int:
    """Run J22's whole experiment: segments, one split by song, nets and ablations.

    \b
    Example:
      mvemo study j22 songs.csv --out study --profile demo --iterations 200
    """
    from mvemo.pipeline.studies.j22 import Experiment, default_iterations, run_j22
    from mvemo.pipeline.studies.segments import Cut

    if iterations is None:
        iterations = default_iterations(options["profile"])
    varied = () if ablations == "none" else comma_separated(ablations)
    experiment = Experiment(nets, seconds, Cut(first or None, tail), iterations, varied)
    return conduct(
        lambda s: run_j22(s, experiment), options, splits=True, experiment=asdict(experiment)
    )


@study.command()
@study_options(runs=1)
@nets_option("speccnn", "Which.")
def tags(nets: tuple[str, ...], **options: Any) -> int:
    """Score nets with an output for each tag, tag by tag (Liu et al. 2017).

    \b
    Example:
      mvemo study tags cal500.csv --out study
    """
    from mvemo.pipeline.studies.tags import run_tags

    return conduct(lambda s: run_tags(s, nets=nets), options, tasks=("multilabel",), nets=nets)


@study.command()
@study_options(runs=10)
@click.option(
    "--rnn-runs",
    type=click.IntRange(min=0),
    help="Repeats of the RNN, which takes longest; 0 leaves it out.  [default: as --runs]",
)
def baselines(rnn_runs: int | None, **options: Any) -> int:
    """Compare SVM, tree, neighbours, perceptron, regression and RNN (J22 Fig. 8).

    \b
    Example:
      mvemo study baselines clips.csv --out study --runs 3 --rnn-runs 0
    """
    from mvemo.pipeline.studies.baselines import run_baselines

    return conduct(lambda s: run_baselines(s, rnn_runs=rnn_runs), options, rnn_runs=rnn_runs)


@study.command()
@study_options(runs=1)
@nets_option("music1d,music2d,c3d,i3d", "Which.")
@click.option(
    "--rate-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the papers' learning rates, which are for nets of full width.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    help="Epochs of each net at most; 0 for the profile's.  [default: 0, with --profile demo 12]",
)
def optimizers(nets: tuple[str, ...], rate_scale: float, epochs: int | None, **options: Any) -> int:
    """Compare Adam, SGD and RMSprop on each unimodal net (PL20 Table 2, Z22 Table 1).

    \b
    Example:
      mvemo study optimizers clips.csv --out study --profile demo
    """
    from mvemo.pipeline.studies.optimizers import default_epochs, run_optimizers

    if epochs is None:
        epochs = default_epochs(options["profile"])
    return conduct(
        lambda s: run_optimizers(s, nets=nets, rate_scale=rate_scale, epochs=epochs),
        options,
        nets=nets,
        rate_scale=rate_scale,
        epochs=epochs,
    )


@study.command()
@study_options(runs=1)
@click.option(
    "--nets",
    callback=lambda context, parameter, value: value and parse_nets(context, parameter, value),
    help="Those that are trained.  [default: the profile's]",
)
@click.option(
    "--frozen",
    callback=lambda context, parameter, value: value and parse_nets(context, parameter, value),
    help="Those that are frozen, of the profile pretrained.  [default: all of which weights are "
    "here; with --profile demo musicnn,effnet, the quick ones]",
)
def protocols(nets: tuple[str, ...] | None, frozen: tuple[str, ...] | None, **options: Any) -> int:
    """Compare the protocols shared, crossfit and frozen, also with shuffled labels.

    One head reads the embeddings of all nets, on the same clips and folds: this shows how
    optimistic the usual protocol, shared, is. The frozen nets are the nets of --profile
    pretrained whose weights have been fetched.

    \b
    Example:
      mvemo study protocols clips.csv --out study --profile demo
    """
    from mvemo.pipeline.studies.protocols import default_frozen, run_protocols

    frozen = frozen or default_frozen(options["profile"])
    return conduct(
        lambda s: run_protocols(s, nets=nets or (), frozen=frozen),
        options,
        nets=nets,
        frozen=frozen,
    )


@study.command()
@study_options(runs=1, profile="best")
@net_option("musicnn")
@click.option(
    "--parts",
    default="",
    help="Parts to leave out in turn, comma-separated; rest for all but the probe at once, papers "
    "for the papers' recipe, or none.  [default: all of the recipe, rest and papers]",
)
def recipes(net: str, parts: str, **options: Any) -> int:
    """Compare one net with and without each part of the fine-tuning recipe.

    The rows are the full recipe of the profile, the recipe without each part and without
    all but the probe, the papers' recipe, and the frozen net with a linear head.

    \b
    Example:
      mvemo study recipes clips.csv --out study --net musicnn --folds 3
    """
    from mvemo.pipeline.studies.recipes import run_recipes

    names = comma_separated(parts)
    return conduct(lambda s: run_recipes(s, net=net, parts=names), options, net=net, parts=names)
