"""Commands ``mvemo study``: run a built-in or a user's study file on a manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click import argument, option

from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.studies import study_file
from mvemo.pipeline.studies.study_file import OptionSpec, StudyFile

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


@study.command(short_help="Train on each file of features, and test on each other one.")
@argument("features", nargs=-1, required=True, type=shared.INPUT)
@option("--scheme", metavar="NAME|quadrants", help="Map labels to shared classes.")
@shared.flag("--json", "Print the scores as JSON.")
@shared.set_option
def transfer(
    features: tuple[Path, ...], scheme: str | None, json: bool, overrides: tuple[str, ...]
) -> None:
    """Train on each of several FEATURES, and test on each other one.

    The classes that both sets have are used, after --scheme has mapped the labels (as in `mvemo
    manifest scan`); `quadrants` also maps ratings of valence and arousal. The loss is the
    out-of-fold score of models trained on the tested set itself, minus the score of models
    from the other set. Recordings in both sets are left out of the larger one.

    \b
    Examples:
      mvemo study transfer emomusic.h5 deam.h5
      mvemo study transfer emomv.h5 deam.h5 --scheme quadrants --json
    """
    from contextlib import ExitStack
    from dataclasses import asdict, replace

    from mvemo.cache import open_cache
    from mvemo.fuse.tasks import TASKS
    from mvemo.fuse.transfer import transfer_all
    from mvemo.manifests import files, text_table
    from mvemo.pipeline.settings_files import settings_for

    if len({path.resolve() for path in features}) < max(2, len(features)):
        listing = ", ".join(map(str, features))
        raise BadOption(f"expected two or more different files of features, got {listing}")
    # Only vectors are compared, so the descriptors of the profile are left out.
    settings = replace(settings_for(features[0], None, overrides), lld=())
    with ExitStack() as stack:
        caches = [stack.enter_context(open_cache(path)) for path in features]
        found = transfer_all(caches, scheme, settings)
    if json:
        click.echo(files.dump_json({"transfers": [asdict(one) for one in found]}))
        return
    head = "trained on,tested on,score,itself,loss,95 % interval,baseline,shared,clips,metric,also"
    titles = {task.primary_metric: task.primary_title for task in TASKS.values()}
    rows = [[*head.split(","), "classes"]]
    for one in found:
        scores = f"{one.score:.3f}", f"{one.own:.3f}", f"{one.loss:+.3f}"
        interval = "{:+.3f} to {:+.3f}".format(*one.interval)
        numbers = interval, f"{one.baseline:.3f}", str(one.n_shared), str(one.n_test)
        also = (
            f"{t} {transferred:.3f} (itself {itself:.3f})"
            for t, (transferred, itself) in one.others.items()
        )
        last = titles[one.metric], ", ".join(also), ", ".join(one.classes)
        rows.append([one.source, one.target, *scores, *numbers, *last])
    click.echo("\n".join(text_table.align_columns(rows, left=(0, 1, 5, 9, 10, 11))))


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
    """Score every ENCODER on every data set; also train on one set and test on another.

    An encoder is the name of a net with public weights, hf:FOLDER, or a plug-in. A
    data set is a folder that `mvemo manifest layouts` knows, a folder for each class, a
    manifest, or a file FEATURES.h5, in which an encoder is the name of a feature.

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
    """Run a study, print and write its results; return the exit code."""
    from mvemo.pipeline.studies import result

    return result.conduct(file, options, option_values(file, options))


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


for _file in study_file.built_in().values():
    study.add_command(study_command(_file))
