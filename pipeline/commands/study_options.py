"""Options that all commands of ``mvemo study`` share, and the function that runs a study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvemo.pipeline.commands.options import (
    OUT_FOLDER,
    PATH,
    comma_separated,
    folds_are_named,
    folds_option,
    paper_options,
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
    from mvemo.pipeline.settings import Settings
    from mvemo.pipeline.studies.core import Study
    from mvemo.pipeline.studies.output import StudyResult

# The values of `mvemo.manifests.segments.TAILS`, which is not imported for --help.
TAILS = ("half", "join", "drop")


def study_options(
    runs: int, profile: str = "paper"
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add the argument and the options that every study has."""
    return together(
        [
            click.argument("manifest", type=PATH),
            click.option(
                "--out",
                type=OUT_FOLDER,
                required=True,
                help="Folder of the tables, plots and page.",
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
            click.option(
                "--jobs",
                type=click.IntRange(min=1),
                help="Nets that are trained at once, each by a process: the cores divided, or a "
                "GPU each.  [default: 1; 2 with --profile demo and two cores]",
            ),
            permute_option,
            root_option,
            strict_option,
            paper_options,
        ]
    )


def net_option(default: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add ``--net``, the name of one net."""
    return click.option(
        "--net", callback=parse_net, default=default, show_default=True, help="Which."
    )


def nets_option(default: str, help_text: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add ``--nets``, the names of several nets."""
    return click.option(
        "--nets", callback=parse_nets, default=default, show_default=True, help=help_text
    )


def cut_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--first`` and ``--tail``, which say how clips are cut."""
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


def segment_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--seconds`` and `cut_options`: the segments that the nets of a study read."""
    seconds = click.option(
        "--seconds",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        help="Length of the segments that nets read (J22 3.2); 0 for whole clips.",
    )
    decorate: Callable[[Callable[..., int]], Callable[..., int]] = together([seconds, cut_options])
    return decorate(function)


def parse_net(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Parse the name of one net."""
    names = parse_nets(context, parameter, value)
    if len(names) > 1:
        raise BadOption(f"--net {value!r}: name one net")
    return names[0]


def parse_nets(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Parse ``a,b`` as names of nets; ``hf:FOLDER``, the folder of an encoder, is one too."""
    from mvemo.extract.nets.parts.registry import add_folders, check_name

    names = add_folders(comma_separated(value))
    if not names:
        raise BadOption(f"--{parameter.name} names no net")
    for name in names:
        check_name(name)
    return names


def parse_lengths(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[float, ...]:
    """Parse ``3,5,10`` as lengths in seconds."""
    try:
        lengths = tuple(dict.fromkeys(map(float, comma_separated(value))))
    except ValueError:
        raise BadOption(f"--seconds {value!r}: write numbers as 3,5,10,16") from None
    if not lengths:
        raise BadOption("--seconds names no length")
    return lengths


def conduct(
    run: Callable[[Study], StudyResult],
    options: Mapping[str, Any],
    tasks: Sequence[str] = (),
    *,
    splits: bool = False,
    **own_settings: Any,
) -> int:
    """Read the manifest, run a study, print its tables, write its files; return the exit code.

    With `splits` the study trains and tests on one split, which the manifest may prescribe.
    Otherwise it has folds.
    """
    from mvemo.extract.training.memory import keep_freed_memory
    from mvemo.fuse.report.text import write_paper
    from mvemo.pipeline.studies.core import open_study
    from mvemo.pipeline.studies.output import banners, without_empty_figures, write_study

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
        jobs=options["jobs"] or default_jobs(options["profile"]),
        fold_file=folds if isinstance(folds, Path) else None,
        tasks=tasks,
    )
    _tell_division(study, options, splits=splits)
    result = without_empty_figures(run(study))
    for banner in banners(study):
        click.echo(banner)
    recorded = {**own_settings, "runs": options["runs"], **asdict(settings)}
    write_study(study, result, recorded, options["out"])
    write_paper(result.papers(study), options["latex"], options["markdown"])
    click.echo(f"{result.text()}\n\npage: {options['out'] / (result.name + '.html')}")
    if study.failures:
        click.echo(f"{len(study.failures)} clips could not be used; the page lists them", err=True)
    return 1 if options["strict"] and study.failures else 0


def default_jobs(profile: str) -> int:
    """Return 1, since large nets need memory; for the profile ``demo`` 2 if there are two cores."""
    from mvemo.extract.workers.pool import cores

    return min(cores(), 2) if profile == "demo" else 1


def _tell_division(study: Study, options: Mapping[str, Any], *, splits: bool) -> None:
    """Refuse folds or a split that the study would not use; note a seed that has no effect."""
    from mvemo.manifests import folds_of, holdout_of
    from mvemo.pipeline.clips.clip_tables import clip_table
    from mvemo.pipeline.stage_one.plan import ask_about_split, tell_unused_seed

    manifest, extract, folds = study.manifest, study.settings.extract, options["folds"]
    if splits and folds is not None:
        raise BadOption(
            f"--folds {folds}: this study trains and tests on one split: leave --folds out; the "
            "manifest's column 'split' says which clips are tested"
        )
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
        division = study.prescribed or folds_of(manifest, extract.folds, extract.fold_seed)
        table = clip_table(manifest, division)
    option = f"extract.fold_seed={extract.fold_seed}"
    if options["seed"] is not None:
        option = f"--seed {options['seed']}"
    tell_unused_seed(option, table, folds if isinstance(folds, Path) else None)


def _settings(options: Mapping[str, Any]) -> Settings:
    """Return the settings that the command line asks for."""
    from mvemo.pipeline.settings_files import Override, load_settings

    overrides = list(options["overrides"])
    folds = options["folds"]
    if isinstance(folds, int):
        overrides.append(Override(f"extract.folds={folds}", f"--folds {folds}"))
    if options["seed"] is not None:
        overrides += [f"extract.seed={options['seed']}", f"extract.fold_seed={options['seed']}"]
    settings = load_settings(options["profile"], overrides)
    return replace(settings, folds_named=folds_are_named(options))
