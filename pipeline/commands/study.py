"""``mvemo study``: the papers' tables and figures for the user's own manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvemo.pipeline.commands.options import (
    FOLDER,
    PATH,
    comma_separated,
    folds_are_named,
    folds_option,
    permute_option,
    root_option,
    seed_option,
    set_option,
    strict_option,
    together,
    work_option,
)
from mvemo.pipeline.errors import BadOption

if TYPE_CHECKING:
    from mvemo.manifests.segments import Tail
    from mvemo.pipeline.settings import Settings
    from mvemo.pipeline.studies.core import Study
    from mvemo.pipeline.studies.output import StudyResult

# Those of `mvemo.manifests.segments`, which is not loaded for --help.
TAILS = ("half", "join", "drop")


def study_options(
    runs: int, profile: str = "paper"
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Argument and options that every study has, and its default number of runs."""
    return together(
        [
            click.argument("manifest", type=PATH),
            click.option(
                "--out", type=FOLDER, required=True, help="Folder of the tables, plots and page."
            ),
            work_option,
            click.option(
                "--profile",
                default=profile,
                show_default=True,
                help="paper, demo, best, or a TOML file.",
            ),
            set_option,
            folds_option("6"),
            seed_option("Of nets, models and folds."),
            click.option(
                "--runs",
                type=click.IntRange(min=1),
                default=runs,
                show_default=True,
                help="Repeats with other folds and seeds.",
            ),
            permute_option,
            root_option,
            strict_option,
        ]
    )


def net_option(default: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """``--net``: one name."""
    return click.option(
        "--net", callback=_one_net, default=default, show_default=True, help="Which."
    )


def nets_option(default: str, help_text: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """``--nets``: several names."""
    return click.option(
        "--nets", callback=_some_nets, default=default, show_default=True, help=help_text
    )


def cut_options(function: Callable[..., int]) -> Callable[..., int]:
    """``--first`` and ``--tail``: how clips are cut."""
    decorate: Callable[[Callable[..., int]], Callable[..., int]] = together(
        [
            click.option(
                "--first",
                type=click.FloatRange(min=0),
                default=30.0,
                show_default=True,
                help="Use only so many seconds of each clip; 0 for all.",
            ),
            click.option(
                "--tail",
                type=click.Choice(TAILS),
                default="drop",
                show_default=True,
                help="The rest of a clip, as of mvemo manifest segment.",
            ),
        ]
    )
    return decorate(function)


def _one_net(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The name of the one net that there is."""
    names = _some_nets(context, parameter, value)
    if len(names) > 1:
        raise BadOption(f"--net {value!r}: name one net")
    return names[0]


def _some_nets(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Names of nets from ``a,b``; folders of encoders, ``hf:FOLDER``, are nets, too."""
    from mvemo.extract.nets.parts.registry import add_folders, check_name

    names = add_folders(comma_separated(value))
    if not names:
        raise BadOption(f"--{parameter.name} names no net")
    for name in names:
        check_name(name)
    return names


def _lengths(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    """Seconds from ``3,5,10``."""
    try:
        lengths = tuple(dict.fromkeys(map(float, comma_separated(value))))
    except ValueError:
        raise BadOption(f"--seconds {value!r}: write numbers as 3,5,10,16") from None
    if not lengths:
        raise BadOption("--seconds names no length")
    return lengths


def _conduct(
    run: Callable[[Study], StudyResult],
    options: Mapping[str, Any],
    tasks: Sequence[str] = (),
    *,
    splits: bool = False,
    **own_settings: Any,
) -> int:
    """Read the manifest, run a study, print its tables and write its files; the exit code.

    The study has one split, which the manifest may prescribe, where `splits` says so, else folds.
    """
    from mvemo.extract.training.memory import keep_freed_memory
    from mvemo.pipeline.studies.core import open_study
    from mvemo.pipeline.studies.output import banners, write_study

    keep_freed_memory()
    settings = _settings(options)
    folds = options["folds"]
    study = open_study(
        options["manifest"],
        settings,
        work=options["work"],
        root=options["root"],
        permute_labels=options["permute_labels"],
        runs=options["runs"],
        fold_file=folds if isinstance(folds, Path) else None,
        tasks=tasks,
    )
    _tell_division(study, options, splits=splits)
    for banner in banners(study):
        click.echo(banner)
    result = run(study)
    recorded = {**own_settings, "runs": options["runs"], **asdict(settings)}
    write_study(study, result, recorded, options["out"])
    click.echo(f"{result.text()}\n\npage: {options['out'] / (result.name + '.html')}")
    if study.failures:
        click.echo(f"{len(study.failures)} clips could not be used; the page lists them", err=True)
    return 1 if options["strict"] and study.failures else 0


def _tell_division(study: Study, options: Mapping[str, Any], *, splits: bool) -> None:
    """Ask about a split that would not be used, and tell of a seed that divides nothing.

    Raises
    ------
    BadOption
        The manifest prescribes a split, the study makes folds, and nobody asked for them.
    """
    from mvemo.manifests import folds_of, holdout_of
    from mvemo.pipeline.clip_tables import clip_table
    from mvemo.pipeline.stage_plan import ask_about_split, tell_unused_seed

    manifest, extract, folds = study.manifest, study.settings.extract, options["folds"]
    if not splits:
        ask_about_split(
            manifest,
            study.settings,
            who="this study",
            instead="mvemo study j22 and mvemo extract --protocol holdout train and test on the "
            "split",
        )
    if options["seed"] is None and not extract.fold_seed:
        return
    if splits:
        table = clip_table(manifest, split=holdout_of(manifest, seed=extract.fold_seed))
    else:
        made = study.prescribed or folds_of(manifest, extract.folds, extract.fold_seed)
        table = clip_table(manifest, made)
    option = f"extract.fold_seed={extract.fold_seed}"
    if options["seed"] is not None:
        option = f"--seed {options['seed']}"
    tell_unused_seed(option, table, folds if isinstance(folds, Path) and not splits else None)


def _settings(options: Mapping[str, Any]) -> Settings:
    """The settings that the command line asks for."""
    from mvemo.pipeline.settings import Override, load_settings

    overrides = list(options["overrides"])
    folds = options["folds"]
    if isinstance(folds, int):
        overrides.append(Override(f"extract.folds={folds}", f"--folds {folds}"))
    if options["seed"] is not None:
        overrides += [f"extract.seed={options['seed']}", f"extract.fold_seed={options['seed']}"]
    settings = load_settings(options["profile"], overrides)
    return replace(settings, folds_named=folds_are_named(options))


@click.group()
def study() -> None:
    """The papers' tables and figures for your own manifest, group-disjoint.

    Every accuracy is out of fold. The papers' own figures stand beside them, marked
    "published, other data".

    \b
    Example:
      mvemo study baselines clips.csv --out study
    """


@study.command()
@study_options(runs=1)
@click.option(
    "--seconds",
    callback=_lengths,
    default="3,5,10,16",
    show_default=True,
    help="Lengths of segments.",
)
@nets_option("cnn,crnn", "Nets on sequences.")
@cut_options
def segments(
    seconds: tuple[float, ...], nets: tuple[str, ...], first: float, tail: Tail, **options: Any
) -> int:
    """Scores by the length of segments (J22 Tables 1 and 2).

    \b
    Example:
      mvemo study segments clips.csv --out study --seconds 3,5,10
    """
    from mvemo.pipeline.studies.segments import Cut, run_segments

    return _conduct(
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
def losses(net: str, centre_tau: float, **options: Any) -> int:
    """Softmax, angular, centre and improved centre loss on one net (J22 2.4).

    \b
    Example:
      mvemo study losses clips.csv --out study --net crnn
    """
    from mvemo.pipeline.studies.losses import run_losses

    return _conduct(
        lambda s: run_losses(s, net=net, centre_tau=centre_tau),
        options,
        tasks=("multiclass",),
        net=net,
        centre_tau=centre_tau,
    )


@study.command()
@study_options(runs=1)
@nets_option("cnn,lightcnn,crnn", "Which.")
def convnets(nets: tuple[str, ...], **options: Any) -> int:
    """Training and test accuracy and confusion of nets (J22 Tables 3 and 4).

    \b
    Example:
      mvemo study convnets clips.csv --out study --nets cnn,lightcnn
    """
    from mvemo.pipeline.studies.convnets import run_convnets

    return _conduct(lambda s: run_convnets(s, nets=nets), options, nets=nets)


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
def iterations(net: str, iterations: int, **options: Any) -> int:
    """Loss by the number of iterations (J22 Fig. 7); trains without the first fold.

    \b
    Example:
      mvemo study iterations clips.csv --out study --iterations 500
    """
    from mvemo.pipeline.studies.iterations import run_iterations

    return _conduct(
        lambda s: run_iterations(s, net=net, iterations=iterations),
        options,
        net=net,
        iterations=iterations,
    )


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
    """J22's whole experiment: segments, one split by song, nets and ablations.

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
    return _conduct(
        lambda s: run_j22(s, experiment), options, splits=True, experiment=asdict(experiment)
    )


@study.command()
@study_options(runs=1)
@nets_option("speccnn", "Which.")
def tags(nets: tuple[str, ...], **options: Any) -> int:
    """Nets with an output for each tag, tag by tag (Liu et al. 2017).

    \b
    Example:
      mvemo study tags cal500.csv --out study
    """
    from mvemo.pipeline.studies.tags import run_tags

    return _conduct(lambda s: run_tags(s, nets=nets), options, tasks=("multilabel",), nets=nets)


@study.command()
@study_options(runs=10)
@click.option(
    "--rnn-runs",
    type=click.IntRange(min=0),
    help="Repeats of the RNN, which takes longest; 0 leaves it out.  [default: as --runs]",
)
def baselines(rnn_runs: int | None, **options: Any) -> int:
    """SVM, tree, neighbours, perceptron, regression and RNN (J22 Fig. 8).

    \b
    Example:
      mvemo study baselines clips.csv --out study --runs 3 --rnn-runs 0
    """
    from mvemo.pipeline.studies.baselines import run_baselines

    return _conduct(lambda s: run_baselines(s, rnn_runs=rnn_runs), options, rnn_runs=rnn_runs)


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
def optimizers(nets: tuple[str, ...], rate_scale: float, **options: Any) -> int:
    """Adam, SGD and RMSprop on each unimodal net (PL20 Table 2, Z22 Table 1).

    \b
    Example:
      mvemo study optimizers clips.csv --out study --profile demo
    """
    from mvemo.pipeline.studies.optimizers import run_optimizers

    return _conduct(
        lambda s: run_optimizers(s, nets=nets, rate_scale=rate_scale),
        options,
        nets=nets,
        rate_scale=rate_scale,
    )


@study.command()
@study_options(runs=1)
@click.option(
    "--nets",
    callback=lambda context, parameter, value: value and _some_nets(context, parameter, value),
    help="Those that are trained.  [default: the profile's]",
)
def protocols(nets: tuple[str, ...] | None, **options: Any) -> int:
    """How far the usual protocol flatters: shared, crossfit, frozen, shuffled labels.

    One head on the embeddings of all nets, on the same clips and folds. The frozen nets are
    those of --profile pretrained whose weights have been fetched.

    \b
    Example:
      mvemo study protocols clips.csv --out study --profile demo
    """
    from mvemo.pipeline.studies.protocols import run_protocols

    return _conduct(lambda s: run_protocols(s, nets=nets or ()), options, nets=nets)


@study.command()
@study_options(runs=1, profile="best")
@net_option("musicnn")
@click.option(
    "--parts",
    default="",
    help="Parts to leave out in turn, comma-separated; papers for the papers' recipe, or none.  "
    "[default: all of the recipe, and papers]",
)
def recipes(net: str, parts: str, **options: Any) -> int:
    """What each part of today's way of fine-tuning is worth on one net.

    The full recipe of the profile, the same without each part, the papers' recipe, and the
    net as it is with a linear head.

    \b
    Example:
      mvemo study recipes clips.csv --out study --net musicnn --folds 3
    """
    from mvemo.pipeline.studies.recipes import run_recipes

    names = comma_separated(parts)
    return _conduct(lambda s: run_recipes(s, net=net, parts=names), options, net=net, parts=names)
