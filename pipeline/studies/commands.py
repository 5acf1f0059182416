"""Commands ``mvemo study``: run a built-in or a user's study file on a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.commands import transfer
from mvemo.pipeline.studies import study_file
from mvemo.pipeline.studies.study_file import OptionSpec, StudyFile

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings
    from mvemo.pipeline.studies.study import Study

# Copy of `mvemo.manifests.segments.TAILS`, since importing that module would slow down --help.
TAILS = ("half", "join", "drop")


@click.group(short_help="Make the papers' tables and figures for your own manifest.")
def study() -> None:
    """Make the papers' tables and figures for your own manifest.

    Test scores are out of fold, and folds keep groups whole. The papers' own values are shown
    next to them, marked "published, other data".

    \b
    Examples:
      mvemo study baselines clips.csv --out study
      mvemo study run my.toml clips.csv --out study
    """


# Options of `study_options` for studies that train, and their values in a study that does not.
UNTRAINED: Mapping[str, Any] = {
    **{"work": Path("work"), "profile": "paper", "overrides": (), "folds": None},
    **{"runs": 0, "jobs": 1, "permute_labels": False},
}


def study_options(
    runs: int | None, profile: str | None, *, trains: bool = True
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return a decorator that adds the argument and the options of every study."""
    seed = "Seed of nets, models and folds." if trains else "Seed of the clips."
    source = "MANIFEST" if trains else "MANIFEST|FOLDER"
    training = [
        shared.work_option,
        option(
            "--profile",
            default=profile,
            help="Settings: paper, demo, best, or a TOML file."
            + ("" if profile else "  [default: profile of FILE, or paper]"),
        ),
        shared.set_option,
        shared.folds_option("6"),
    ]
    repeats = [
        option(
            "--runs",
            type=shared.COUNT,
            default=runs,
            help="Number of runs; each has different folds and seeds."
            + ("" if runs else "  [default: runs of FILE, or 1]"),
        ),
        option(
            "--jobs",
            type=shared.COUNT,
            help="Number of nets to train at the same time, each in a process with a share of "
            "the cores or with a GPU.  [default: 1; 2 with --profile demo and two cores]",
        ),
        shared.permute_option,
    ]
    return shared.together(
        [
            argument("manifest", type=shared.INPUT, metavar=source),
            option(
                "--out",
                type=shared.OUT_FOLDER,
                required=True,
                help="Folder for the tables, plots and page.",
            ),
            *(training if trains else ()),
            shared.seed_option(seed),
            *(repeats if trains else ()),
            shared.root_option,
            shared.strict_option,
            shared.paper_options,
        ]
    )


study.add_command(transfer.transfer)


@study.command(short_help="Compare encoders on several public data sets, and between them.")
@argument("encoders", nargs=-1, required=True, metavar="ENCODER...")
@option(
    "--sets",
    multiple=True,
    required=True,
    metavar="[LAYOUT=]PATH",
    help="Folder, manifest or feature file of a data set; LAYOUT is one of `mvemo manifest "
    "layouts`, if it is not recognised.  [repeatable]",
)
@option("--out", type=shared.OUT_FOLDER, required=True, help="Folder for the tables and the page.")
@option(
    "--work",
    type=shared.OUT_FOLDER,
    default=Path("bench-work"),
    help="Folder for decoded media and features; an interrupted run is continued.",
)
@option("--folds", type=click.IntRange(min=2), default=5, help="Number of folds.")
@option(
    "--scheme",
    default="quadrants",
    metavar="NAME|quadrants",
    help="Maps labels to classes that sets share, for transfer.  [default: quadrants]",
)
@shared.paper_options
@shared.set_option
def bench(
    encoders: tuple[str, ...], sets: tuple[str, ...], out: Path, work: Path, **options: Any
) -> None:
    """Score every ENCODER on every data set, and train on each set to test on each other one.

    An encoder is the name of a net with public weights, hf:FOLDER, or a plug-in. A
    data set is a folder that `mvemo manifest layouts` knows, a folder for each class, a
    manifest, or a file FEATURES.h5, whose features are scored where their names are given.

    \b
    Example:
      mvemo study bench musicnn effnet --sets pmemo/ --sets my.csv --out bench
    """
    from mvemo.pipeline.studies import encoder_bench

    encoder_bench.run_bench(encoders, sets, out, work, options)


@study.command("run", short_help="Run your own study from FILE (see docs/studies.md).")
@argument("file", type=shared.FILE)
@study_options(runs=None, profile=None)
def run_file(file: Path, **options: Any) -> int:
    """Run your own study from a TOML file; docs/studies.md shows an example.

    \b
    Example:
      mvemo study run my.toml clips.csv --out study
    """
    read = study_file.check_values(study_file.read_study(file))
    options["profile"] = options["profile"] or read.profile
    options["runs"] = options["runs"] or read.runs
    if not read.trains:
        options |= UNTRAINED
    return conduct(read, dict.fromkeys(read.options) | options)


def study_command(file: StudyFile) -> click.Command:
    """Return the command of a built-in study."""
    decorators = [study_options(file.runs, file.profile, trains=file.trains)]
    decorators += [_option(file, name, spec) for name, spec in file.options.items()]

    def run(**options: Any) -> int:
        return conduct(file, options if file.trains else {**options, **UNTRAINED})

    first = file.help.strip().split("\n")[0]
    command = click.command(file.name, help=file.help, short_help=first)
    return command(shared.together(decorators)(run))


def _option(file: StudyFile, name: str, spec: OptionSpec) -> Callable[..., Any]:
    """Return the decorator that adds an option of a study."""
    kind = spec.type or {float: "float", int: "int"}.get(type(spec.default), "nets")
    default: Any = None if spec.demo is not None else spec.default
    if default is None and name in ("net", "nets") and file.grid.get("net"):
        default = ",".join(file.grid["net"])
    attributes: dict[str, Any] = {"default": default, "help": spec.help or None}
    low = spec.above if spec.min is None else spec.min
    if kind in PARSERS:
        attributes["callback"] = lambda _, __, text: (
            None if text is None else PARSERS[kind](name, text)
        )
    elif kind == "tail":
        attributes["type"] = click.Choice(TAILS)
    elif kind == "int":
        attributes["type"] = click.IntRange(None if spec.min is None else int(spec.min))
    elif low is not None:
        attributes["type"] = click.FloatRange(low, min_open=spec.min is None)
    else:
        attributes["type"] = float
    return option("--" + name.replace("_", "-"), show_default=spec.shown, **attributes)


def _parse_nets(name: str, value: str) -> tuple[str, ...]:
    """Parse ``a,b`` as names of nets; ``hf:FOLDER``, an encoder's folder, is also a name."""
    from mvemo.extract.nets.parts.registry import add_encoders, check_name

    nets = add_encoders(shared.comma_separated(value))
    if not nets:
        raise BadOption(f"--{name}: expected at least one net")
    for net in nets:
        check_name(net)
    if name == "net" and len(nets) > 1:
        raise BadOption(f"--net {value!r}: expected only one net")
    return nets


def _parse_lengths(name: str, value: str) -> tuple[float, ...]:
    """Parse ``3,5,10`` as lengths in seconds."""
    try:
        lengths = tuple(dict.fromkeys(map(float, shared.comma_separated(value))))
    except ValueError:
        raise BadOption(f"--{name} {value!r}: expected numbers, for example 3,5,10,16") from None
    if not lengths:
        raise BadOption(f"--{name}: expected at least one length")
    return lengths


# Kind of an option -> function that parses its text; it gets the option's name and the text.
PARSERS: Mapping[str, Callable[[str, str], tuple[Any, ...]]] = {
    "nets": _parse_nets,
    "lengths": _parse_lengths,
    "words": lambda name, value: shared.comma_separated(value),
}


def conduct(file: StudyFile, options: Mapping[str, Any]) -> int:
    """Read the manifest, run a study, print and write its results; return the exit code."""
    from mvemo.extract.training import devices
    from mvemo.pipeline.studies import result as results
    from mvemo.pipeline.studies import runner
    from mvemo.pipeline.studies.study import open_study

    devices.keep_freed_memory()
    settings = _settings(options)
    folds = options["folds"]
    values = option_values(file, options)
    study = open_study(
        options["manifest"],
        settings,
        **{name: options[name] for name in ("work", "root", "permute_labels", "runs")},
        jobs=options["jobs"] or default_jobs(options["profile"]),
        fold_file=folds if isinstance(folds, Path) else None,
        tasks=file.tasks,
    )
    if file.trains:
        _tell_division(study, options, splits=file.splits)
    draft = runner.run_study(study, with_options(file, values), values)
    for banner in results.banners(study):
        click.echo(f"{banner.title}: {banner.text}")
    recorded = {**_recorded(file, values), "runs": options["runs"], **asdict(settings)}
    results.write_study(draft, recorded, options["out"])
    results.write_papers(draft, *shared.paper_of(options))
    click.echo(f"{draft}\n\npage: {options['out'] / (file.name + '.html')}")
    if study.failures:
        click.echo(f"{len(study.failures)} clips could not be used; the page lists them", err=True)
    return int(options["strict"] and bool(study.failures))


def option_values(file: StudyFile, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a study's own options; profile ``demo`` has its own defaults."""
    values = {}
    for name, spec in file.options.items():
        value = options[name]
        if value is None:
            value = spec.default
            if options["profile"] == "demo" and spec.demo is not None:
                value = spec.demo
            if isinstance(value, str) and spec.type in PARSERS:
                value = PARSERS[spec.type](name, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def with_options(file: StudyFile, values: Mapping[str, Any]) -> StudyFile:
    """Return the study file with the nets and segment lengths that the options name."""
    grid = dict(file.grid)
    nets = values.get("nets") or values.get("net")
    if nets and file.table.rows != "protocols":
        grid["net"] = nets
    if "seconds" in values:
        seconds = values["seconds"]
        grid["segment"] = seconds if isinstance(seconds, tuple) else (seconds,)
    vary = dict(file.vary)
    if "ablations" in values:
        chosen = () if values["ablations"] == ("none",) else values["ablations"]
        for name in chosen:
            if name not in vary:
                known = ", ".join(vary)
                raise BadOption(f"--ablations: unknown {name!r}; expected some of {known}, or none")
        vary = {axis: listed for axis, listed in vary.items() if axis in chosen}
    return replace(file, grid=grid, vary=vary)


def _recorded(file: StudyFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's own options in the form that is written to its JSON file."""
    from mvemo.pipeline.studies import runner

    recorded = dict(values)
    if "net" in recorded:
        recorded["net"] = values["net"][0]
    if file.name != "segments":
        for name in ("first", "tail"):
            recorded.pop(name, None)
        if "seconds" in recorded:
            recorded["cut"] = asdict(runner.cut_of(values))
    return recorded


def default_jobs(profile: str) -> int:
    """Return 1, since large nets need memory, or 2 for profile ``demo`` on two or more cores."""
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
            f"--folds {folds}: this study uses one split instead of folds: leave out --folds; the "
            "manifest's column 'split' names the test clips"
        )
    if not splits:
        others = "mvemo study j22 and mvemo extract --protocol holdout train and test on the split"
        ask_about_split(manifest, study.settings, who="this study", instead=others)
    if options["seed"] is not None:
        option = f"--seed {options['seed']}"
    elif extract.fold_seed:
        option = f"extract.fold_seed={extract.fold_seed}"
    else:
        return
    if splits:
        table = clip_table(manifest, split=holdout_of(manifest, seed=extract.fold_seed))
    else:
        division = study.prescribed or folds_of(manifest, extract.folds, extract.fold_seed)
        table = clip_table(manifest, division)
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
    return replace(settings, folds_named=shared.folds_are_named(options))


for _file in study_file.built_in().values():
    study.add_command(study_command(_file))
