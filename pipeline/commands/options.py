"""Options that several commands share. No numeric package is imported for ``--help``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import option

from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import load_files
from mvemo.pipeline.console.messages import Verbosity

if TYPE_CHECKING:
    from mvemo.fuse.report.tables import TableStyle

Decorator = Callable[[Any], Any]


class Entry(click.types.StringParamType):
    """Path, pattern or run; empty text (as of an unset shell variable) and URLs are refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = str(value)
        if not text:
            say = "the path is empty: give a file or folder, or '.' for the current folder"
            self.fail(say, param, ctx)
        if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
            raise BadOption(f"{text}: URLs are not supported: download the file first")
        return value


ENTRY = Entry()


class NamedPath(click.Path):
    """Path on the command line: not empty, and not a URL."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(str(super().convert(ENTRY.convert(value, param, ctx), param, ctx)))
        if problem := self.problem(path):
            self.fail(f"{path}: {problem}", param, ctx)
        return path

    def problem(self, path: Path) -> str:
        """Return what is wrong with a path, or ''."""
        return ""


class InputPath(NamedPath):
    """Path that must exist, checked before the command imports a slow module."""

    def problem(self, path: Path) -> str:
        # An unfinished run leaves only rows; opening the cache then says how to recover them.
        if not (path.exists() or path.with_name(f"{path.name}.parts").exists()):
            raise BadOption(f"{path}: no such file")
        return ""


class OutputPath(NamedPath):
    """Output path, checked before any work; `makes_folders` allows missing parent folders."""

    def __init__(self, makes_folders: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self._makes_folders = makes_folders

    def problem(self, path: Path) -> str:
        place = path if path.is_dir() else path.parent
        if self._makes_folders:
            place = next((p for p in (place, *place.parents) if p.exists()), place)
        if not place.exists():
            return f"its folder {place} does not exist: create it first"
        if not place.is_dir():
            return f"{place} is a file, not a folder: give another path"
        if not os.access(place, os.W_OK | os.X_OK):
            return f"{place} cannot be written: give another path"
        is_full = shutil.disk_usage(place).free < 64 << 10
        return f"no space left on the disk of {place}: free some space" if is_full else ""


# Suffixes of tables that are not CSV.
_OTHER_TABLES = ".tsv .parquet .pq .xlsx .xlsm .xls .ods .json .jsonl .feather .arrow .orc .h5 .npz"


class TablePath(OutputPath):
    """Path of a table to write, in the format of its suffix; other suffixes of tables fail."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False)
        self._suffixes = suffixes

    def problem(self, path: Path) -> str:
        suffix, problem = path.suffix.lower(), super().problem(path)
        if not problem and suffix in {*_OTHER_TABLES.split()} - {*self._suffixes}:
            right = " or ".join([".csv", *self._suffixes[:1]])
            return f"expected a name that ends with {right}, got {suffix}"
        if not problem and suffix in self._suffixes and find_spec("pyarrow") is None:
            cure = "run 'pip install pyarrow', or give a name that ends with .csv"
            return f"writing Parquet needs pyarrow: {cure}"
        return problem


PATH, FILE = NamedPath(), NamedPath(dir_okay=False)
INPUT, INPUT_FILE = InputPath(), InputPath(dir_okay=False)
FOLDER, OUT_FILE = NamedPath(file_okay=False), OutputPath(dir_okay=False)
CSV_FILE, TABLE_FILE = TablePath(), TablePath(".parquet", ".pq")
OUT_FOLDER = OutputPath(makes_folders=True, file_okay=False)


# Settings of the outermost command, which its subcommands inherit.
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "show_default": True}
# Number of processes, runs, clips or folds.
COUNT = click.IntRange(min=1)


class FoldsOption(click.ParamType):  # type: ignore[type-arg]
    """Number of folds, or a file with the fold of each clip."""

    name = "folds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an int of 2 or more, or the path of an existing file."""
        try:
            number = int(value)
        except (TypeError, ValueError):
            if not Path(value).is_file():
                self.fail(f"expected a number of folds or a fold file, got {value!r}", param, ctx)
            return Path(value)
        if number < 2:
            self.fail(f"{number} is too few: cross-validation needs at least 2 folds", param, ctx)
        return number


def typed_option(names: str, kind: Any, help_text: str, **more: Any) -> Decorator:
    """Add an option: its names, the type of its values, and the text of its help."""
    return option(*names.split(), type=kind, help=help_text, **more)


def flag(name: str, help_text: str) -> Decorator:
    """Add an option without a value, False by default."""
    return option(name, is_flag=True, help=help_text)


def together(decorators: Sequence[Decorator]) -> Decorator:
    """Combine decorators into one; the first is the outermost."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def folds_option(default: str) -> Decorator:
    """Add ``--folds``: an int, a `Path`, or None."""
    return typed_option(
        "--folds",
        FoldsOption(),
        "Number of folds, or a file from mvemo manifest folds (any CSV with the columns "
        f"clip_id and fold).  [default: {default}]",
        metavar="NUMBER|FILE",
    )


def folds_are_named(options: Mapping[str, Any]) -> bool:
    """Return True if ``--folds`` or ``--set extract.folds=`` was given."""
    keys = (override.partition("=")[0].strip() for override in options["overrides"])
    return options["folds"] is not None or "extract.folds" in keys


def _model_names(context: Any, parameter: Any, text: str | None) -> tuple[str, ...] | None:
    names = None if text is None else comma_separated(text)
    if names == ():
        raise BadOption(f"--models {text!r}: expected at least one name")
    return names


# These options differ only in their help.
models_option = partial(typed_option, "--models", str, callback=_model_names)
seed_option = partial(typed_option, "--seed", click.IntRange(min=0))


def _shard(context: Any, parameter: Any, text: str | None) -> Any:
    from mvemo.pipeline.stage_one.division import Shard

    return None if text is None else Shard.parse(text)


shard_option = partial(typed_option, "--shard", str, metavar="i/n", callback=_shard)


def with_shared_options(command: click.Command) -> click.Command:
    """Add ``--plugin``, ``--verbose`` and ``--quiet`` to a command and all its subcommands."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            with_shared_options(child)
    if not any(parameter.name == "verbose" for parameter in command.params):
        for add in _shared_options:
            add(command)
    return command


def _remember(context: click.Context, parameter: click.Parameter, given: Any) -> None:
    state = context.find_root().ensure_object(Verbosity)
    if parameter.name == "in_json" and given:
        state.in_json = given == "json"
    elif given:
        state.level = parameter.name  # type: ignore[assignment]


_state: dict[str, Any] = {"expose_value": False, "callback": _remember}
_shared_options = (
    typed_option(
        "--plugin",
        INPUT,
        "Python file with nets, losses or other parts of your own.",
        multiple=True,
        metavar="FILE.py",
        is_eager=True,
        expose_value=False,
        callback=lambda context, parameter, files: load_files(files),
    ),
    option(
        "--log-format",
        "in_json",
        type=click.Choice(["text", "json"]),
        help="Messages on stderr as text, or as one line of JSON each.",
        **_state,
    ),
    option(
        *("-v", "--verbose"),
        is_flag=True,
        help="Print more messages, and the traceback of an error.",
        **_state,
    ),
    option(*("-q", "--quiet"), is_flag=True, help="Print only results and errors.", **_state),
)


set_option = option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting; docs/settings.md lists all settings.",
)
model_option = option(
    "--model",
    "model_name",
    type=ENTRY,
    metavar="NAME|FOLDER",
    help="Name from `mvemo models`, or a folder that mvemo fuse --final wrote.  "
    "[default: songs, or music-video if all files have pictures]",
)


backend_options = together(
    [
        typed_option(
            "--backend",
            click.Choice(["local", "dask"]),
            "Where the work is done: on this machine, or by the workers of a Dask scheduler.",
            default="local",
        ),
        option(
            "--scheduler", metavar="ADDRESS", help="Address of the Dask scheduler: tcp://HOST:8786."
        ),
    ]
)


def scheduler_of(options: Mapping[str, Any]) -> str:
    """Return the address of the scheduler, or ""; raise `BadOption` for half of the options."""
    backend, scheduler = options["backend"], options["scheduler"]
    if (backend == "dask") != bool(scheduler):
        missing = "--scheduler ADDRESS" if backend == "dask" else "--backend dask"
        raise BadOption(
            f"--backend dask and --scheduler ADDRESS must be given together: add {missing}"
        )
    return scheduler or ""


def _device(context: Any, parameter: Any, name: str) -> str:
    from mvemo.extract.settings import check_device

    return check_device(name, "--device")


device_option = option(
    "--device",
    default="auto",
    metavar="auto|cpu|cuda|cuda:N|mps",
    callback=_device,
    help="Device on which the nets run.",
)
root_option = typed_option("--root", PATH, "Folder to which the manifest's paths are relative.")
work_option = typed_option(
    "--work",
    OUT_FOLDER,
    "Folder for decoded media and trained nets, kept on this machine.",
    default=Path("work"),
)


def _weights(context: Any, parameter: Any, entries: tuple[str, ...]) -> dict[str, Path]:
    weights = {}
    for entry in entries:
        net, equals, file = entry.partition("=")
        if not equals or not net:
            raise BadOption(f"--weights {entry!r}: write it as NET=FILE, such as i3d=weights.npz")
        weights[net] = Path(file)
        if not (weights[net].exists() or file.startswith("hear:")):
            raise BadOption(f"--weights {entry!r}: there is no file {file}")
    return weights


weights_option = partial(
    typed_option, "--weights", str, multiple=True, metavar="NET=FILE", callback=_weights
)


def _column_names(context: Any, parameter: Any, values: tuple[str, ...]) -> dict[str, str]:
    """Parse ``OURS=THEIRS`` into a dict from mvemo's column names to the table's."""
    columns = {}
    for text in values:
        ours, equals, theirs = (part.strip() for part in text.partition("="))
        if not (ours and equals and theirs):
            raise BadOption(f"--column {text!r}: expected OURS=THEIRS, such as path=file")
        if ours in columns:
            raise BadOption(f"--column {text!r}: {ours} is given twice")
        columns[ours] = theirs
    return columns


column_option = option(
    "--column",
    "columns",
    multiple=True,
    callback=_column_names,
    metavar="OURS=THEIRS",
    help="Name of a column in the table, such as clip_id=song. May be given several times.",
)
task_option = typed_option(
    "--task",
    click.Choice(["multiclass", "multilabel", "regression"]),
    "Task, if the manifest has classes and ratings.  [default: the manifest's]",
)
strict_option = flag("--strict", "Exit with code 1 if clips failed.")


def _forget(context: Any, parameter: Any, value: bool) -> None:
    from mvemo.extract.store.contents import forget_contents

    if value:
        forget_contents()


rehash_option = option(
    "--rehash",
    is_flag=True,
    expose_value=False,
    callback=_forget,
    help="Read all files again, also those with the size, time and inode of the last run.",
)


def _scale(context: Any, parameter: Any, value: str | None) -> str:
    from mvemo.manifests.labels import parse_scale

    try:
        return "" if value is None or not parse_scale(value) else value
    except ValueError as error:
        raise BadOption(f"--{error}") from None


scale_option = option(
    "--scale",
    callback=_scale,
    metavar="LOW..HIGH",
    help="Rating scale of valence and arousal, such as 1..9.  [default: the manifest's]",
)
permute_option = flag(
    "--permute-labels",
    "Shuffle the labels, to check that all scores are at chance.",
)


class PermutingCommand(click.Command):
    """Command whose option --permute-labels has a number or no value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give --permute-labels without a number the number 1, so that it takes no argument."""
        following = [*args[1:], ""]
        full = [
            f"{arg}=1" if arg == "--permute-labels" and not after.isdecimal() else arg
            for arg, after in zip(args, following, strict=True)
        ]
        return super().parse_args(ctx, full)


draws_option = typed_option(
    "--permute-labels",
    click.IntRange(min=0),
    "Draw the labels at random, to check that all scores are at chance; with a number N from "
    "20, compare the scores with those of N random draws, and print a p-value.",
    default=0,
    show_default=False,
    metavar="[N]",
)


# Output files of `mvemo.fuse.report.tables.write_paper`.
paper_options = together(
    [
        typed_option("--latex", OUT_FILE, "Also write the table for LaTeX (booktabs)."),
        typed_option("--markdown", OUT_FILE, "Also write the table as Markdown."),
        option(
            "--table-columns",
            metavar="TITLE,...",
            help="Keep only these columns in both, such as mean,MCC; the first column stays.",
        ),
        option("--table-label", default="", metavar="LABEL", help="LaTeX's \\\\label."),
        option("--table-caption", default="", metavar="TEXT", help="Caption instead of the title."),
    ]
)


def paper_of(options: Mapping[str, Any]) -> tuple[Path | None, Path | None, TableStyle]:
    """Return the files and the style of tables for a paper, from the options of a command."""
    from mvemo.fuse.report.tables import TableStyle

    columns, label, caption = (options[f"table_{n}"] for n in ("columns", "label", "caption"))
    style = TableStyle(comma_separated(columns or ""), label, caption)
    return options["latex"], options["markdown"], style


force_option = flag("--force", "Replace an existing file.")


def refuse_replacing(path: Path, force: bool) -> None:
    """Raise `BadOption` if the file exists and ``--force`` was not given."""
    if path.exists() and not force:
        raise BadOption(f"{path}: already exists: name another file, or give --force")


def comma_separated(text: str) -> tuple[str, ...]:
    """Split ``a,b`` at commas; leave out empty and duplicate parts."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
