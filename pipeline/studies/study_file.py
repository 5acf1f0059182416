"""Study files: TOML files that define what a study compares, measures, prints and plots.

docs/studies.md explains their keys. The keys ``rows``, ``extra`` and ``run`` name functions for
steps that only one study needs. Only `check_values` imports torch, so that ``--help`` stays fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mvemo.extract.settings import LOSSES, OPTIMIZERS, RecipeSettings, TrainSettings
from mvemo.manifests import declared, text_files
from mvemo.manifests.errors import BadOption

INTERVAL_NOTE = (
    "low and high: ends of the 95 % interval over groups. sd: standard deviation over runs, or "
    "over folds if there is one run."
)
# Training settings of a net that can be an axis.
TRAINING = tuple(f.name for f in fields(TrainSettings) if f.name not in ("recipe", "optimizer"))
# Parts of the fine-tuning recipe; they are off by default.
PARTS = (*(f.name for f in fields(RecipeSettings)), "weight_decay")
# Axis -> its possible values, or a description of them.
AXES: Mapping[str, tuple[str, ...] | str] = {
    "net": "a net of 'mvemo nets', or hf:FOLDER",
    "combination": "nets joined by +, whose embeddings one head reads",
    "segment": "seconds, or 0 for whole clips",
    "optimizer": OPTIMIZERS,
    "protocol": ("crossfit", "shared", "frozen"),
    "labels": ("true", "shuffled"),
    "part": ("full", *PARTS, "rest", "papers"),  # part that is left out of the recipe
    "alpha": "a number (weight of the residual phase)",
    "width": "a number (factor for a net's channels)",
    **dict.fromkeys(TRAINING, "a number"),
    "loss": LOSSES,
}
# Name of a function in a study file -> module and function in `mvemo.pipeline.studies`.
FUNCTIONS: Mapping[str, Mapping[str, str]] = {
    "rows": {
        "classical models": "classical:classical_rows",
        "protocols": "protocols:protocol_rows",
        "recipe parts": "protocols:recipe_rows",
    },
    "extra": {
        "baseline row": "classical:add_baseline_row",
        "confusions": "extra_tables:add_confusions",
        "confusions and losses": "extra_tables:add_experiment",
        "losses": "extra_tables:add_losses",
        "protocol findings": "protocols:add_protocol_findings",
        "recipe findings": "protocols:add_recipe_findings",
        "tags": "extra_tables:add_tags",
    },
    "run": {"robustness": "robustness:run_robustness"},
}
# Name of a function -> keys that its study file must have.
NEEDED: dict[str, tuple[str, ...]] = {
    "robustness": ("options.models", "options.degradations", "options.clips"),
    "recipe parts": ("grid.net",),
}
# Papers whose published values can be given as a path.
PAPERS = ("J22", "PL20", "Z22")
# Kind of a function -> key of its name.
_PLACES = {"run": "run", "rows": "table.rows", "extra": "table.extra"}
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """Settings for the rows that match `where`; for each key, the first matching entry counts."""

    where: Mapping[str, Any] = field(default_factory=dict)  # axis -> value or list of values
    values: Mapping[str, Any] = field(default_factory=dict)  # axis -> value, or "$option"


@dataclass(frozen=True)
class Figure:
    """Published value or values for a column of a table; by default scores in per cent."""

    column: str
    value: float | str  # a number, or a path in published.toml with names of axes in braces
    where: Mapping[str, Any] = field(default_factory=dict)  # axis -> value or list of values
    rule: str = ""  # "j22" or "pl20": shown only next to the paper's classes and nets
    segment: float = 0.0  # published segment length in s, if `segment` is not an axis
    metric: str = "score"  # measured quantity that it is compared with
    kind: str = "percent"  # or "number"
    table: str = ""  # "counts" for the table of segment counts


@dataclass(frozen=True)
class TableSpec:
    """Main table of a study."""

    name: str = "scores"
    title: str = "{Score} out of fold"
    columns: tuple[str, ...] = ()  # first columns: axes, or values of the rows; default: all axes
    label: str = ""  # name of a row in plots and notes; default: the values of its axes
    rows: str = ""  # function that makes the rows
    extra: str = ""  # function that adds tables and notes
    counts: str = ""  # title of a table of the number of segments
    difference: str = ""  # "full" adds the column "full less this": first row minus each row
    nets: str = ""  # error message for nets without an entry in ``[[set]]``


@dataclass(frozen=True)
class Measure:
    """Measured quantities, per segment, per song, or both."""

    metrics: tuple[str, ...] = ("score", "low", "high", "sd", "others", "baseline")
    level: tuple[str, ...] = ("segment",)


@dataclass(frozen=True)
class PlotSpec:
    """Plot of a study: a bar for each row, or lines over a numeric axis."""

    title: str = "{Score}"  # "" for no plot
    x: str = ""  # axis of the grid for lines; "" for bars
    axis: str = ""  # title of the x axis


@dataclass(frozen=True)
class OptionSpec:
    """Option of a study's command."""

    type: str = ""  # float, int, nets, lengths, words or tail; default: that of `default`, or nets
    help: str = ""
    default: Any = None  # for ``net`` and ``nets``: the values of the grid
    demo: Any = None  # default with the profile ``demo``
    min: float | None = None
    above: float | None = None  # exclusive minimum
    shown: bool = True  # show the default in ``--help``


@dataclass(frozen=True)
class StudyFile:
    """Content of a study file."""

    title: str
    help: str = ""
    sources: tuple[str, ...] = ()  # citations, or short names of published.toml
    tasks: tuple[str, ...] = ()  # allowed tasks; default: all
    runs: int = 1
    profile: str = "paper"
    splits: bool = False  # train and test on one split, not on folds
    first_fold: bool = False  # train one net, without the first fold
    trains: bool = True  # False for finished models on a manifest or a folder, also unlabelled
    run: str = ""  # function that runs the whole study
    notes: tuple[str, ...] = ("{interval}",)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    set: tuple[Setting, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)  # value -> name in tables
    table: TableSpec = field(default_factory=TableSpec)
    measure: Measure = field(default_factory=Measure)
    published: tuple[Figure, ...] = ()
    plot: PlotSpec = field(default_factory=PlotSpec)
    options: Mapping[str, OptionSpec] = field(default_factory=dict)
    # Path of the file, for messages, and first part of the names of the written files.
    path: str = field(default="", metadata={"key": False})
    name: str = field(default="", metadata={"key": False})

    @property
    def measures_songs(self) -> bool:
        """Return True if the scores of whole songs are measured."""
        return "song" in self.measure.level or "test songs" in self.measure.metrics

    @property
    def functions(self) -> dict[str, str]:
        """Names of the functions under ``run``, ``rows`` and ``extra``; "" if there is none."""
        return {"run": self.run, "rows": self.table.rows, "extra": self.table.extra}

    def function(self, kind: str) -> Any:
        """Import the function that the file names under ``run``, ``rows`` or ``extra``, or None."""
        name = self.functions[kind]
        if not name:
            return None
        module, function = FUNCTIONS[kind][name].split(":")
        return getattr(import_module(f"mvemo.pipeline.studies.{module}"), function)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill the braces of a template; numbers are written without trailing zeros."""
    short = {k: f"{v:g}" if isinstance(v, float) else v for k, v in values.items()}
    return template.format_map(short)


def matches(where: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    """Return True if the row has, for each axis in `where`, its value or a value of its list."""
    return all(values.get(axis) in _listed(wanted) for axis, wanted in where.items())


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


@cache
def built_in() -> dict[str, StudyFile]:
    """Return the study files that come with mvemo, by name."""
    others = {FOLDER / "published.toml", FOLDER / "shared-options.toml"}
    return {path.stem: read_study(path) for path in sorted({*FOLDER.glob("*.toml")} - others)}


@cache
def published() -> dict[str, Any]:
    """Return the content of ``published.toml``."""
    content: dict[str, Any] = text_files.read_toml(FOLDER / "published.toml")
    return content


def read_study(path: Path) -> StudyFile:
    """Read a study file, and check its keys, axes and function names."""
    tree = text_files.read_toml(path)
    if not isinstance(tree.get("title"), str):
        raise BadOption(f"{path}: title: expected a string")
    entries = tree.get("set", [])
    if isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries):
        tree["set"] = [
            {"where": entry.pop("where", {}), "values": dict(entry)} for entry in entries
        ]
    options = tree.get("options", {})
    for name, shared in text_files.read_toml(FOLDER / "shared-options.toml").items():
        if isinstance(options, dict) and "type" not in options.get(name, {"type": ""}):
            options[name] = {**shared, **options[name]}
    try:
        stated = declared.from_table(StudyFile, tree)
    except ValueError as error:
        raise BadOption(f"{path}: {error}") from None
    file: StudyFile = replace(stated, path=str(path), name=path.stem)
    _check(file)
    return file


def _unknown(file: StudyFile, place: str, value: object, possible: Any) -> BadOption:
    expected = possible if isinstance(possible, str) else f"one of {', '.join(possible)}"
    return BadOption(f"{file.path}: {place}: unknown {value!r}; expected {expected}")


def _check(file: StudyFile) -> None:
    """Check axes, listed values, function names, the keys that functions need, and templates."""
    path, x = file.path, file.plot.x
    _check_axes(file)
    if file.runs < 1:
        raise BadOption(f"{path}: runs: expected 1 or more, got {file.runs}")
    columns = () if file.table.rows else file.table.columns
    for place, value, possible in (
        *((_PLACES[k], v, FUNCTIONS[k]) for k, v in file.functions.items() if v),
        *(("measure.level", level, ("segment", "song")) for level in file.measure.level),
        *([("plot.x", x, file.grid or ("an axis of the grid",))] if x else []),
        *(
            ("table.columns", c, (*file.grid, "rate", "varied", "value"))
            for c in columns
            if c not in AXES
        ),
        *(("published.rule", each.rule, ("j22", "pl20")) for each in file.published if each.rule),
    ):
        if value not in possible:
            raise _unknown(file, place, value, possible)
    for kind, name in file.functions.items():
        for needed in NEEDED.get(name, ()):
            table, _, key = needed.partition(".")
            if key not in getattr(file, table):
                raise BadOption(f"{path}: {_PLACES[kind]}: {name!r} needs {needed}")
    if not (file.run or file.table.rows) and not {"net", "combination"} & file.grid.keys():
        raise BadOption(f"{path}: grid: expected nets to compare, such as net = ['crnn']")
    if file.measures_songs and not any(file.grid.get("segment", ())):
        raise BadOption(f"{path}: measure: scores of songs need segments: add grid.segment")
    for value in file.grid.get(x, ()):
        if isinstance(value, str):
            raise BadOption(f"{path}: plot.x: expected a numeric axis, got value {value!r}")
    for figure in file.published:
        if isinstance(figure.value, str) and figure.value.split(".")[0] not in PAPERS:
            paths = f"a number, or a path that starts with one of {', '.join(PAPERS)}"
            raise _unknown(file, "published.value", figure.value, paths)
    words = {**dict.fromkeys(file.grid, ""), "Score": "", "score": "", "interval": ""}
    for place, text in (
        ("title", file.title),
        ("table.title", file.table.title),
        ("table.label", file.table.label),
        ("plot.title", file.plot.title),
        *(("notes", note) for note in file.notes),
    ):
        try:
            text.format_map(words)
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise _unknown(file, f"{place}, in braces", str(error).strip("'"), words) from None


def _check_axes(file: StudyFile) -> None:
    """Check the names of axes, and those of their values that can be checked without torch."""
    for place, axis, values in _axes(file):
        if axis not in AXES:
            raise _unknown(file, place, axis, AXES)
        possible = AXES[axis]
        for value in values:
            if isinstance(possible, tuple):
                correct = (str(value).lower() if axis == "optimizer" else value) in possible
            else:
                option = isinstance(value, str) and value[1:] in file.options
                correct = option or type(value) in (int, float) or axis in ("net", "combination")
            if not correct:
                raise _unknown(file, f"{place}.{axis}", value, possible)
        if not values and place in ("grid", "vary"):
            raise BadOption(f"{file.path}: grid.{axis}: expected at least one value")


def _axes(file: StudyFile) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield the place, name and values of each axis that a file names."""
    for place, tables in (
        ("grid", [file.grid]),
        ("vary", [file.vary]),
        ("set", [setting.values for setting in file.set]),
        ("set.where", [setting.where for setting in file.set]),
    ):
        for table in tables:
            yield from ((place, axis, _listed(value)) for axis, value in table.items())


def check_values(file: StudyFile) -> StudyFile:
    """Check nets and numbers of a user's file, which needs torch; add Hugging Face folders."""
    from mvemo.extract.descriptors import DescriptorSettings
    from mvemo.extract.nets.parts.registry import add_encoders, check_name
    from mvemo.extract.settings import NetSettings
    from mvemo.manifests.errors import MvemoError

    for place, axis, values in _axes(file):
        for value in values:
            try:
                if axis in ("net", "combination"):
                    for name in add_encoders(str(value).split("+")):
                        check_name(name)
                elif axis in TRAINING and not isinstance(value, str):
                    replace(TrainSettings(), patience=0, **{axis: value})
                elif axis == "alpha":
                    replace(DescriptorSettings(), alpha=value)
                elif axis == "width":
                    NetSettings("", width=value)
                elif axis == "segment" and not value >= 0:
                    raise BadOption(f"expected 0 or more, got {value}")
            except MvemoError as error:
                raise BadOption(f"{file.path}: {place}.{axis}: {error}") from error
    nets = tuple(str(net) for net in file.grid.get("net", ()))
    return replace(file, grid={**file.grid, "net": add_encoders(nets)}) if nets else file
