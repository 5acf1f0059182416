"""Included models, by name, and the cards of models: data, scores and limits.

Included models are folders next to this file, in the form that `mvemo fuse --final` writes.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mvemo.extract.media.request import in_words
from mvemo.fuse.final.model import FinalModel, Predictor
from mvemo.fuse.final.model_files import MODEL, load_model
from mvemo.fuse.tasks import task_of
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import write_text
from mvemo.manifests.text_files import read_toml
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.messages import tell

# Default model if all files have pictures, or if no other model is included.
DEFAULT = "music-video"
# Default model for sound, and for a mix of songs and videos, so that they share one table.
OF_SOUND = "songs"

FOLDER = Path(__file__).parent

WIDTH = 79
_TASKS = {"multiclass": "classes", "multilabel": "tags", "regression": "ratings"}
# Plain words for the main score of each task, by metric.
_EXPECT = {
    "accuracy": "about {:.0%} of the labels are correct",
    "roc_auc_macro": "a clip with a tag ranks above a clip without it in about {:.0%} of pairs",
    "r2_macro": "about {:.0%} of the variance of clips' ratings is explained",
}
# Minimum number of judged clips for which a score is stated.
LEAST_JUDGED = 20
UNKNOWN = f"unknown on yours: judge {LEAST_JUDGED} clips to see"
_KINDS: dict[type, str] = {
    str: "a sentence",
    list: "a list of sentences",
    dict: "a table of sentences",
}
# Key of the TOML file to the type of its value. `scale` describes the scale of each rating,
# `unlike` states how well clips of other kinds are recognised as such, and `elsewhere` how good
# the model was on other kinds of music.
KEYS: dict[str, type] = {
    **dict.fromkeys(("title", "data", "groups", "licence", "choices", "use"), str),
    # Name of an included model of valence and arousal that reads a subset of the features.
    "companion": str,
    **dict.fromkeys(("citations", "avoid"), list),
    **dict.fromkeys(("scale", "unlike", "elsewhere"), dict),
}


def boxed_names() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{MODEL}"))


def companion_of(model: FinalModel) -> FinalModel | None:
    """Return the card's model of valence and arousal, if its features are among this model's."""
    name = _about(model).get("companion")
    companion = None if name is None else _ready_model(name)
    digests = {spec.digest for spec in model.specs}
    is_ready = companion and digests >= {spec.digest for spec in companion.specs}
    return companion if is_ready else None


@cache
def _ready_model(name: str) -> FinalModel | None:
    """Return an included model (cached), or None if there is no model of this name."""
    return load_model(FOLDER / name) if name in boxed_names() else None


def _about(model: FinalModel) -> dict[str, Any]:
    return dict(model.facts.get("about", {}))


def defaults() -> list[str]:
    """Return the default models that are included; the model for sound comes first."""
    return [name for name in (OF_SOUND, DEFAULT) if name in boxed_names()]


def pick_model(name: str | Path | None, has_pictures: Sequence[bool] = (), task: str = "") -> Path:
    """Return the folder of a model; without a name, choose a default and print a message.

    `has_pictures` is True for each file with pictures. The model must have the `task`, if stated.
    """
    if name is not None:
        return model_folder(name)
    n, found = sum(has_pictures), defaults()
    if n and n == len(has_pictures):
        found.reverse()
    name = next((f for f in found if task in ("", load_model(FOLDER / f).task)), found[0])
    text = f"using the model {name}; others: mvemo models"
    if n and name == OF_SOUND:
        text = (
            f"using the model {name}, for sound: {n} of {len(has_pictures)} files have pictures, "
            f"which --model {DEFAULT} reads, too"
        )
    tell(text)
    return FOLDER / name


def model_folder(name: str | Path) -> Path:
    """Return the folder at this path if it has a model, otherwise an included model's folder."""
    folder = Path(name)
    if (folder / MODEL).is_file():
        return folder
    if str(name) in boxed_names():
        return FOLDER / str(name)
    if folder.is_dir():
        # Reading the folder will report why it is not a model.
        return folder
    raise BadOption(f"--model {name}: expected a folder, or one of {', '.join(boxed_names())}")


def read_about(path: Path) -> dict[str, Any]:
    """Read the TOML file of ``mvemo fuse --about``; its keys must be in `KEYS`."""
    about: dict[str, Any] = read_toml(path)
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
    expected = model.expected_of(model.predictors[0])
    lines = (
        _about(model).get("title", f"trained on {model.name}"),
        _classes(model),
        f"reads {_modalities(model)}",
        f"{_count(model)}; {task_of(model.task).primary_title} {_score(expected)}",
    )
    return [name, *(wrapped for line in lines for wrapped in _wrap(line, "    "))]


def card_text(name: str, folder: Path, place: str = "") -> str:
    """Return the whole card, at most 79 columns wide; `place` is shown instead of the folder."""
    model = load_model(folder)
    about = _about(model)
    first = model.predictors[0]
    expected = model.expected_of(first)
    cost = "" if expected is first.expected else " (includes the cost of choosing it)"
    notes = [*model.facts.get("notes", []), about.get("choices", "")]
    expect = f"{_score(expected)} of {first.name}{cost}"
    alarms = model.alarm(first).get("false_alarms", {})
    shares = ", ".join(f"{share:.1%} ({name})" for name, share in alarms.items())
    if first.expected.get("per_group"):
        expect = expected_words(model, first, ends=True)
    sections = [
        [name, "=" * len(name)],
        _wrap(about.get("title", "")),
        _facts(model, about, folder, place or str(folder)),
        ["Cross-validated scores (groups left out of the training):", *_scores(model)],
        _wrap(f"Expect {expect}."),
        *map(_wrap, elsewhere_words(model)),
        _wrap(_coverage(model, first)),
        _outputs(first, _TASKS[model.task]),
        _wrap(f"Clips like these that are called unlike them: {shares}." * bool(shares)),
        [
            w
            for kind, told in about.get("unlike", {}).items()
            for w in _wrap(f"{kind}: {told}", "  ")
        ],
        *map(_wrap, notes),
    ]
    for heading, sentences in (("Not for", about.get("avoid")), ("Cite", about.get("citations"))):
        if sentences:
            sections.append([heading, *(w for s in sentences for w in _wrap(s, "    ", "  - "))])
    return "\n\n".join("\n".join(section) for section in sections if section)


def write_hub_card(folder: Path, name: str) -> None:
    """Write a model's card as ``README.md``, with the metadata that the Hugging Face Hub reads."""
    model = load_model(folder)
    expected = model.expected_of(model.predictors[0])
    metadata: dict[str, Any] = {
        "library_name": "mvemo",
        "tags": ["music-emotion-recognition", "audio", *model.classes],
        "pipeline_tag": "audio-classification",
        "license": "other",
        "license_name": _about(model).get("licence", "not stated"),
    }
    value, metric = expected.get("mean"), str(expected.get("metric"))
    if value is not None:
        result = {
            "task": {"type": "audio-classification"},
            "dataset": {"name": model.name, "type": model.name},
            "metrics": [{"type": metric, "value": value, "name": f"cross-validated {metric}"}],
        }
        metadata["model-index"] = [{"name": name, "results": [result]}]
    # JSON is YAML, too.
    head = "\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in metadata.items())
    card = f"```\n{card_text(name, folder, name)}\n```"
    use = f"```sh\npip install mvemo\nmvemo predict song.mp3 --model {name}\n```"
    write_text(folder / "README.md", f"---\n{head}\n---\n\n{card}\n\n{use}\n")


def expected_words(model: FinalModel, predictor: Predictor, *, ends: bool = False) -> str:
    """Return a predictor's score to expect on new clips in plain words.

    With `ends`, scores on data sets that were left out are followed by their intervals.
    """
    sets: dict[str, Any] = predictor.expected.get("per_group") or {}
    if sets:
        words = [f"{_set_words(scores, ends)} on {name}" for name, scores in sets.items()]
        return "; ".join([*words, UNKNOWN])
    mean = model.expected_of(predictor).get("mean")
    return "not known" if mean is None else _EXPECT[predictor.expected["metric"]].format(mean)


def _set_words(scores: Mapping[str, Any], ends: bool) -> str:
    def cell(name: str, form: str) -> str:
        mean, low, high = scores[name]
        interval = f" [{form} to {form}]".format(low, high) if ends and low is not None else ""
        return ("not known" if mean is None else form.format(mean)) + interval

    r = [f"{cell(name, '{:.2f}')} for {name[2:]}" for name in scores if name.startswith("r ")]
    if not r:
        (metric,) = scores.keys() & _EXPECT.keys()
        return _EXPECT[metric].replace("{:.0%}", cell(metric, "{:.0%}"))
    share = "quadrant_accuracy"
    quadrant = f" and the right quadrant for {cell(share, '{:.0%}')}" if share in scores else ""
    if ends and "quadrant_ece" in scores:
        error, by_chance = scores["quadrant_ece"]
        quadrant += (
            f" (mean confidence {scores['confidence']:.0%}, calibration error {error:.2f}; "
            f"by chance {by_chance:.2f})"
        )
    return f"r {', '.join(r)}{quadrant}"


def elsewhere_words(model: FinalModel) -> list[str]:
    """Return a sentence on the score for each other kind of music that was measured."""
    stated = _about(model).get("elsewhere", {})
    words = [f"On {kind}: {text.rstrip('.')}." for kind, text in stated.items()]
    # With scores of each group, `expected_words` already ends with UNKNOWN.
    is_told = not words or model.predictors[0].expected.get("per_group")
    return words if is_told else [*words, UNKNOWN.capitalize() + "."]


def _facts(model: FinalModel, about: dict[str, Any], folder: Path, place: str) -> list[str]:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    nets = [s.name for s in model.specs if s.extractor.startswith("net:")]
    rows = {
        "predicts": _classes(model),
        "reads": _modalities(model),
        "for": about.get("use", ""),
        "data": about.get("data", model.name),
        "clips": _count(model),
        "groups": about.get("groups", ""),
        "licence": about.get("licence", ""),
        "nets": f"{', '.join(dict.fromkeys(nets)) or 'none'} ({model.facts['protocol']})",
        "folder": f"{size / 1000:.0f} kB, {place}",
    }
    rows |= {f"  {target}": words for target, words in about.get("scale", {}).items()}
    width = max(map(len, rows))
    return [
        line
        for key, text in rows.items()
        for line in _wrap(text, " " * (width + 2), f"{key:{width}}  ")
    ]


def _scores(model: FinalModel) -> list[str]:
    """Return a line per predictor; the first one whose features a clip has predicts it."""
    task = task_of(model.task)
    key, title = task.field_score
    rows = [("  model", "needs", task.primary_title, "95 % interval", title)]
    for predictor in model.predictors:
        other = predictor.expected.get("scores", {}).get(key)
        last = "" if other is None else f"{other:.3f}"
        needs, cells = in_words(predictor.modalities), score_cells(predictor.expected)
        rows.append((f"  {predictor.name}", needs, *cells, last))
    # Models of earlier versions lack the score of the last column.
    n = 5 if any(row[-1] for row in rows[1:]) else 4
    return align_columns([row[:n] for row in rows], left=(0, 1))


def _coverage(model: FinalModel, predictor: Predictor) -> str:
    """Return a sentence on the coverage of a predictor's sets; '' if it was not evaluated."""
    got: Mapping[str, Any] | None = predictor.expected.get("coverage")
    if got is None:
        return ""
    kind, few = "Intervals" if got["size"] is None else "Sets", model.few_groups(predictor)
    size = "" if got["size"] is None else f", with {got['size']:.2f} members on average"
    return (
        f"{kind} of {predictor.name} at a coverage of {got['asked']:.0%} hold the truth for "
        f"{got['share']:.1%} of clips in cross-validation{size} (mvemo predict --coverage)."
        + f" {few[:1].upper()}{few[1:]}."
        * bool(few)
    )


def _outputs(predictor: Predictor, outputs: str) -> list[str]:
    """Return a heading and a line for each class, tag or target; empty if nothing is known."""
    per_output: dict[str, dict[str, float | None]] = predictor.expected.get("per_output", {})
    names = list(dict.fromkeys(name for scores in per_output.values() for name in scores))
    if not names:
        return []
    rows = [("  ", *names)]
    for output, scores in per_output.items():
        cells = map(scores.get, names)
        rows.append((f"  {output}", *("" if c is None else f"{c:.3f}" for c in cells)))
    return [f"Scores of {predictor.name} for each of the {outputs}:", *align_columns(rows)]


def _classes(model: FinalModel) -> str:
    return f"{len(model.classes)} {_TASKS[model.task]}: {', '.join(model.classes)}"


def _count(model: FinalModel) -> str:
    return "{n_clips} clips in {n_groups} groups, {folds} folds".format(**model.facts)


def _modalities(model: FinalModel) -> str:
    most, *others = dict.fromkeys(in_words(p.modalities) for p in model.predictors)
    return f"{most}, or only {' or '.join(others)}" if others else most


def _score(expected: Mapping[str, Any]) -> str:
    score, ends = score_cells(expected)
    return (score or "not known") + (f" [{ends}]" if ends else "")


def score_cells(expected: Mapping[str, Any]) -> tuple[str, str]:
    """Return an expected mean score and its interval, each empty if it is not known."""
    mean, (low, high) = expected.get("mean"), expected.get("interval") or (None, None)
    ends = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return "" if mean is None else f"{mean:.3f}", ends


def _wrap(text: str, indent: str = "", first: str | None = None) -> list[str]:
    """Break a text into lines; an empty text has no lines."""
    first = indent if first is None else first
    lines = textwrap.wrap(text, WIDTH - len(indent), break_on_hyphens=False)
    return [(indent if i else first) + line for i, line in enumerate(lines)]
