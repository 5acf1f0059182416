"""``mvemo study``: the papers' tables and figures for the user's own manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import NET_NAMES, PROFILES, Settings, load_settings

if TYPE_CHECKING:
    from mvemo.pipeline.studies.core import Study
    from mvemo.pipeline.studies.output import StudyResult

Command = Callable[..., None]


def _common(runs: int) -> Callable[[Command], Command]:
    """Argument and options that every study has, and its default number of runs."""
    decorators = [
        click.argument("manifest", type=click.Path(path_type=Path)),
        click.option(
            "--out",
            type=click.Path(path_type=Path, file_okay=False),
            required=True,
            help="Folder of the tables, plots and page.",
        ),
        click.option(
            "--work",
            type=click.Path(path_type=Path, file_okay=False),
            default=Path("work"),
            show_default=True,
            help="Folder of decoded media and trained nets, as of mvemo extract.",
        ),
        click.option(
            "--profile",
            default="paper",
            show_default=True,
            help=f"{' or '.join(PROFILES)}, or a TOML file.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting."
        ),
        click.option("--folds", type=click.IntRange(min=2), help="Number of folds.  [default: 6]"),
        click.option("--seed", type=click.IntRange(min=0), help="Of nets, models and folds."),
        click.option(
            "--runs",
            type=click.IntRange(min=1),
            default=runs,
            show_default=True,
            help="Repeats with other folds and seeds.",
        ),
        click.option(
            "--permute-labels",
            is_flag=True,
            help="Shuffle the labels: a check that must come out at chance.",
        ),
        click.option("--root", type=click.Path(path_type=Path), help="Media root."),
    ]

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _conduct(
    run: Callable[[Study], StudyResult],
    options: Mapping[str, Any],
    **own: Any,
) -> None:
    """Read the manifest, run a study, print its tables and write its files.

    Ends with exit code 1 where some clips could not be used.
    """
    from mvemo.extract.training.memory import keep_freed_memory
    from mvemo.pipeline.studies.core import open_study
    from mvemo.pipeline.studies.output import banners, write_study

    keep_freed_memory()
    settings = _settings(options)
    study = open_study(
        options["manifest"],
        settings,
        work=options["work"],
        root=options["root"],
        permute_labels=options["permute_labels"],
        runs=options["runs"],
    )
    for banner in banners(study):
        click.echo(banner)
    result = run(study)
    write_study(study, result, {**own, "runs": options["runs"], **asdict(settings)}, options["out"])
    click.echo(f"{result.text()}\n\npage: {options['out'] / (result.name + '.html')}")
    if study.failures:
        click.echo(f"{len(study.failures)} clips could not be used; the page lists them", err=True)
        raise click.exceptions.Exit(1)


def _settings(options: Mapping[str, Any]) -> Settings:
    given = list(options["overrides"])
    if options["folds"] is not None:
        given.append(f"extract.folds={options['folds']}")
    if options["seed"] is not None:
        given += [f"extract.seed={options['seed']}", f"extract.fold_seed={options['seed']}"]
    return load_settings(options["profile"], given)


def _names(text: str) -> tuple[str, ...]:
    """Names of nets from ``a,b``."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in NET_NAMES:
            raise BadOption(f"net {name!r} is not known: of {', '.join(NET_NAMES)}")
    if not names:
        raise BadOption("--nets names no net")
    return names


def _seconds(text: str) -> tuple[float, ...]:
    try:
        return tuple(dict.fromkeys(float(part) for part in text.split(",") if part.strip()))
    except ValueError:
        raise BadOption(f"--seconds {text!r}: write numbers as 3,5,10,16") from None


@click.group()
def study() -> None:
    """The papers' tables and figures for your own manifest, group-disjoint.

    Every accuracy is out of fold. The papers' own figures stand beside them, marked
    "published, other data".
    """


@study.command()
@_common(runs=1)
@click.option("--seconds", default="3,5,10,16", show_default=True, help="Lengths of segments.")
@click.option("--nets", default="cnn,crnn", show_default=True, help="Nets on sequences.")
def segments(seconds: str, nets: str, **options: Any) -> None:
    """Accuracy by the length of segments (J22 Tables 1 and 2)."""
    chosen, lengths = _names(nets), _seconds(seconds)
    if not lengths:
        raise BadOption("--seconds names no length")
    from mvemo.pipeline.studies.segments import run_segments

    _conduct(
        lambda s: run_segments(s, seconds=lengths, nets=chosen),
        options,
        seconds=lengths,
        nets=chosen,
    )


@study.command()
@_common(runs=1)
@click.option("--net", type=click.Choice(NET_NAMES), default="crnn", show_default=True)
@click.option(
    "--centre-tau",
    type=click.FloatRange(min=0),
    default=0.003,
    show_default=True,
    help="Weight of the centres in L3; L4 takes the net's own setting.",
)
def losses(net: str, centre_tau: float, **options: Any) -> None:
    """Softmax, angular, centre and improved centre loss on one net (J22 2.4)."""
    from mvemo.pipeline.studies.losses import run_losses

    _conduct(
        lambda s: run_losses(s, net=net, centre_tau=centre_tau),
        options,
        net=net,
        centre_tau=centre_tau,
    )


@study.command()
@_common(runs=1)
@click.option("--nets", default="cnn,lightcnn,crnn", show_default=True, help="Which.")
def convnets(nets: str, **options: Any) -> None:
    """Training and test accuracy and confusion of nets (J22 Tables 3 and 4)."""
    chosen = _names(nets)
    from mvemo.pipeline.studies.convnets import run_convnets

    _conduct(lambda s: run_convnets(s, nets=chosen), options, nets=chosen)


@study.command()
@_common(runs=1)
@click.option("--net", type=click.Choice(NET_NAMES), default="crnn", show_default=True)
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=2500,
    show_default=True,
    help="Steps of the optimizer.",
)
def iterations(net: str, iterations: int, **options: Any) -> None:
    """Loss by the number of iterations (J22 Fig. 7); trains without the first fold."""
    from mvemo.pipeline.studies.iterations import run_iterations

    _conduct(
        lambda s: run_iterations(s, net=net, iterations=iterations),
        options,
        net=net,
        iterations=iterations,
    )


@study.command()
@_common(runs=10)
@click.option(
    "--rnn-runs",
    type=click.IntRange(min=0),
    help="Repeats of the RNN, which takes longest; 0 leaves it out.  [default: as --runs]",
)
def baselines(rnn_runs: int | None, **options: Any) -> None:
    """SVM, tree, neighbours, perceptron, regression and RNN (J22 Fig. 8)."""
    from mvemo.pipeline.studies.baselines import run_baselines

    _conduct(lambda s: run_baselines(s, rnn_runs=rnn_runs), options, rnn_runs=rnn_runs)


@study.command()
@_common(runs=1)
@click.option("--nets", default="music1d,music2d,c3d,i3d", show_default=True, help="Which.")
@click.option(
    "--rate-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiplies the papers' learning rates, which are for nets of full width.",
)
def optimizers(nets: str, rate_scale: float, **options: Any) -> None:
    """Adam, SGD and RMSprop on each unimodal net (PL20 Table 2, Z22 Table 1)."""
    chosen = _names(nets)
    from mvemo.pipeline.studies.optimizers import run_optimizers

    _conduct(
        lambda s: run_optimizers(s, nets=chosen, rate_scale=rate_scale),
        options,
        nets=chosen,
        rate_scale=rate_scale,
    )
