"""Included models, by name, and the cards of models: data, scores and limits.

Included models are folders next to this file, in the form that `mvemo fuse --final` writes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mvemo.fuse.final.model import MODEL, FinalModel, Predictor, load_model
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.messages import tell
from mvemo.pipeline.errors import BadOption

# The default model predicts from sound, pictures or both, so songs and videos share one table.
DEFAULT = "music-video"

FOLDER = Path(__file__).parent

WIDTH = 79
IN_WORDS = {"audio": "sound", "video": "pictures"}
_TASKS = {"multiclass": "classes", "multilabel": "tags", "regression": "ratings"}
_KINDS: dict[type, str] = {
    str: "a sentence",
    list: "a list of sentences",
    dict: "a table of sentences",
}
# Key of the TOML file to the type of its value. `scale` describes each target of ratings.
KEYS: dict[str, type] = {
    "title": str,
    "data": str,
    "groups": str,
    "licence": str,
    "citations": list,
    "choices": str,
    "use": str,
    "avoid": list,
    "scale": dict,
}


def boxed_names() -> list[str]:
    """Return the names of the included models."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL}"))


def pick_model(name: str | None) -> Path:
    """Return the folder of a model; without a name, use `DEFAULT` and print a message."""
    if name is None:
        tell(f"using the model {DEFAULT}, for songs and music videos; others: mvemo models")
    return model_folder(DEFAULT if name is None else name)


def model_folder(name: str | Path) -> Path:
    """Return the folder at this path if it has a model, otherwise that of an included model."""
    folder = Path(name)
    if (folder / MODEL).is_file():
        return folder
    if str(name) in boxed_names():
        return FOLDER / str(name)
    if folder.is_dir():
        # The folder is returned because reading it will report the problem.
        return folder
    raise BadOption(f"--model {name}: expected a folder, or one of {', '.join(boxed_names())}")


def read_about(path: Path) -> dict[str, Any]:
    """Read the TOML file of ``mvemo fuse --about``; its keys must be in `KEYS`."""
    from mvemo.manifests.files import parse_toml

    try:
        about = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadOption(f"--about {path}: cannot be read as TOML: {error}") from error
    for key, value in about.items():
        if key not in KEYS:
            raise BadOption(
                f"--about {path}: unknown key {key!r}; expected one of {', '.join(KEYS)}"
            )
        values = value.values() if isinstance(value, dict) else value
        parts = values if isinstance(value, (dict, list)) else [value]
        if not isinstance(value, KEYS[key]) or not all(isinstance(part, str) for part in parts):
            raise BadOption(f"--about {path}: {key}: expected {_KINDS[KEYS[key]]}, got {value!r}")
    return about


def summary_lines(name: str, folder: Path) -> list[str]:
    """Return a few lines that describe a model, for a list of models."""
    model = load_model(folder)
    about: dict[str, Any] = model.facts.get("about", {})
    expected = model.expected_of(model.predictors[0])
    title = about.get("title", f"trained on {model.name}")
    score = f"{_count(model)}; {expected['metric']} {_score(expected)}"
    lines = [title, f"{len(model.classes)} {_TASKS[model.task]}: {', '.join(model.classes)}"]
    lines += [f"reads {_modalities(model)}", score]
    return [name, *(wrapped for line in lines for wrapped in _wrap(line, "    "))]


def card_text(name: str, folder: Path) -> str:
    """Return the whole card, at most 79 columns wide; `name` is from the command line."""
    model = load_model(folder)
    about: dict[str, Any] = model.facts.get("about", {})
    lines = [name, "=" * len(name), ""]
    if "title" in about:
        lines += [*_wrap(about["title"]), ""]
    lines += _facts(model, about, folder)
    lines += ["", "Cross-validated scores (groups left out of the training):", *_scores(model)]
    first = model.predictors[0]
    text = f"Expect {_score(model.expected_of(first))} of {first.name}"
    chosen = model.expected_of(first) is not first.expected
    lines += ["", *_wrap(text + (" (includes the cost of choosing it)." if chosen else "."))]
    outputs = list(_outputs(first))
    if outputs:
        lines += ["", f"Each of the {_TASKS[model.task]}, by {first.name}:", *outputs]
    if (alarms := model.false_alarms(first)) < 1:
        text = f"False alarms: at most {alarms:.1%} of clips like these are marked as unlike them."
        lines += ["", *_wrap(text)]
    notes = [*model.facts.get("notes", []), *([about["choices"]] if "choices" in about else [])]
    for note in notes:
        lines += ["", *_wrap(note)]
    for heading, sentences in (("Not for", about.get("avoid")), ("Cite", about.get("citations"))):
        if sentences:
            lines += ["", heading, *(w for s in sentences for w in _wrap(s, "    ", "  - "))]
    return "\n".join(lines)


def _facts(model: FinalModel, about: dict[str, Any], folder: Path) -> Iterator[str]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    nets = [s.name for s in model.specs if s.extractor.startswith("net:")]
    rows = {
        "predicts": f"{len(model.classes)} {_TASKS[model.task]}: {', '.join(model.classes)}",
        "reads": _modalities(model),
        "for": about.get("use", ""),
        "data": about.get("data", model.name),
        "clips": _count(model),
        "groups": about.get("groups", ""),
        "licence": about.get("licence", ""),
        "nets": f"{', '.join(dict.fromkeys(nets)) or 'none'} ({model.facts['protocol']})",
        "folder": f"{size / 1000:.0f} kB, {folder}",
    }
    rows |= {f"  {target}": words for target, words in about.get("scale", {}).items()}
    width = max(map(len, rows))
    for key, text in rows.items():
        if text:
            yield from _wrap(text, " " * (width + 2), f"{key:{width}}  ")


def _scores(model: FinalModel) -> list[str]:
    """Return a line per predictor; a clip is predicted by the first whose features it has."""
    rows = [("  model", "needs", model.predictors[0].expected["metric"], "95 % interval")]
    for predictor in model.predictors:
        mean, interval = predictor.expected["mean"], predictor.expected.get("interval")
        score = "" if mean is None else f"{mean:.3f}"
        ends = "" if not interval or None in interval else f"{interval[0]:.3f} to {interval[1]:.3f}"
        rows.append((f"  {predictor.name}", _needs(predictor), score, ends))
    return align_columns(rows, left=(0, 1))


def _outputs(predictor: Predictor) -> Iterator[str]:
    """Yield a line for each class, tag or target."""
    per_output: dict[str, dict[str, float | None]] = predictor.expected.get("per_output", {})
    names = list(dict.fromkeys(name for scores in per_output.values() for name in scores))
    if names:
        rows = [("  ", *names)]
        for output, scores in per_output.items():
            cells = [scores.get(name) for name in names]
            rows.append((f"  {output}", *("" if c is None else f"{c:.3f}" for c in cells)))
        yield from align_columns(rows)


def _count(model: FinalModel) -> str:
    facts = model.facts
    return f"{facts['n_clips']} clips in {facts['n_groups']} groups, {facts['folds']} folds"


def _needs(predictor: Predictor) -> str:
    return " and ".join(IN_WORDS[modality] for modality in predictor.modalities)


def _modalities(model: FinalModel) -> str:
    """Return in words the modalities that a clip may have."""
    sets = list(dict.fromkeys(_needs(predictor) for predictor in model.predictors))
    return f"{sets[0]}, or only {' or '.join(sets[1:])}" if len(sets) > 1 else sets[0]


def _score(expected: Mapping[str, Any]) -> str:
    """Format an expected mean score with its interval."""
    mean, interval = expected["mean"], expected.get("interval")
    if mean is None:
        return "not known"
    if not interval or None in interval:
        return f"{mean:.3f}"
    return f"{mean:.3f} [{interval[0]:.3f} to {interval[1]:.3f}]"


def _wrap(text: str, indent: str = "", first: str | None = None) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
