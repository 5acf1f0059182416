"""Published scores of the papers, shown next to the user's scores; see published.toml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvemo.fuse.models import AUDIO, INTEGRATED, VIDEO
from mvemo.fuse.report.text import fraction, percent
from mvemo.fuse.results import ModelResult, Results
from mvemo.manifests.text_files import read_toml

_DATA: dict[str, Any] = read_toml(Path(__file__).with_suffix(".toml"))
# Short name to citation of the papers that a report may cite.
SOURCES: Mapping[str, str] = {name: _DATA["sources"][name] for name in ("PL20", "Z22")}
CLASSES: tuple[str, ...] = tuple(_DATA["PL20"]["classes"])
CHOSEN_OPTIMIZER: Mapping[str, str] = _DATA["PL20"]["optimizer"]
FUSIONS: Mapping[str, tuple[str, ...]] = {
    **{f"{video}+{audio}": (video, audio) for video in VIDEO for audio in AUDIO},
    INTEGRATED: (*AUDIO, *VIDEO),
}


@dataclass(frozen=True)
class Published:
    """A published result, as fractions; None for a score that the source does not state."""

    source: str  # short name from `SOURCES`, and the table
    accuracy: float  # mean over folds if the source has folds
    f1: float
    roc_auc: float
    accuracy_min: float | None = None  # minimum over six folds
    accuracy_max: float | None = None  # maximum over six folds

    def texts(self) -> tuple[str, str, str]:
        """Return accuracy in percent, F1 and AUC as text."""
        return percent(self.accuracy), fraction(self.f1, 2), fraction(self.roc_auc)


# Source to models to scores, PL20's first.
SCORES: Mapping[str, Mapping[str, Published]] = {
    source: {model: Published(source, *values) for model, values in table.items()}
    for source, table in _DATA["scores"].items()
}
# Optimizer to scores by net.
PL20_TABLE_2 = {name: SCORES[f"PL20 Table 2, {name}"] for name in ("Adam", "SGD", "RMSprop")}
PL20_TABLE_3 = SCORES["PL20 Table 3"]
Z22_TABLE_1 = {name: SCORES[f"Z22 Table 1, {name}"] for name in ("Adam", "SGD")}
Z22_TABLE_3: Sequence[Sequence[int]] = _DATA["Z22"]["confusion"]


def comparable(classes: Sequence[str]) -> bool:
    """Return True if a data set has the papers' six classes, in any order and case."""
    return sorted(c.casefold() for c in classes) == sorted(c.casefold() for c in CLASSES)


def published_name(results: Results, model: ModelResult) -> str:
    """Return the name of the published model that has the same parts as a model, or ''.

    PL20's Table 2 and Z22's Table 1 score the nets themselves, so their scores belong to a
    net's outputs and not to a head fitted on its embedding.
    """
    if not results.task.exclusive or results.permuted or not comparable(results.classes):
        return ""
    nets: tuple[str, ...]
    if model.by_net:
        name = model.features[0].removesuffix("-outputs")
        nets = (name,) if name in CHOSEN_OPTIMIZER else ()
    else:
        name, nets = model.name, FUSIONS.get(model.name, ())
        if set(nets) != set(model.features):
            return ""
    features = results.provenance.get("features", {})
    # True if all features are embeddings of mvemo's nets at the papers' width.
    of_papers = all(
        spec.get("extractor", "").startswith(f"net:{net} ")
        and spec["dim"] == _DATA["PL20"]["embedding"][net]
        for net in nets
        for spec in features.get(net) or [{}]
    )
    return name if nets and of_papers else ""


def published_beside(results: Results) -> dict[str, Published]:
    """Map models to the scores in PL20 (Table 2 for single nets, Table 3), if there are any."""
    nets = {net: PL20_TABLE_2[name][net] for net, name in CHOSEN_OPTIMIZER.items()}
    figures = {**PL20_TABLE_3, **nets}
    names = {model.name: published_name(results, model) for model in results.models}
    return {model: figures[name] for model, name in names.items() if name in figures}


def all_published_beside(results: Results) -> list[tuple[str, Published]]:
    """Return (model, published scores) for all papers; those of PL20 are first."""
    names = [(model.name, published_name(results, model)) for model in results.models]
    return [
        (model, table[name]) for model, name in names for table in SCORES.values() if name in table
    ]


def published_confusion(results: Results) -> list[list[int]]:
    """Return Z22's Table 3 in the order of the classes; [] if no model is ``integrated``."""
    if INTEGRATED not in {published_name(results, model) for model in results.models}:
        return []
    known = [c.casefold() for c in CLASSES]
    order = [known.index(c.casefold()) for c in results.classes]
    return [[Z22_TABLE_3[row][column] for column in order] for row in order]


def sentence_beside(results: Results) -> str:
    """Return a sentence with C17's scores if size and targets are those of C17's data, or ''."""
    c17 = _DATA["C17"]
    names = {name.casefold() for name in results.classes}
    of_emomusic = names == {"arousal", "valence"} and len(results.clip_ids) == c17["clips"]
    of_others = results.permuted or results.predicted_by
    if results.task.name != "regression" or not of_emomusic or of_others:
        return ""
    listed = "; ".join(
        f"{features}: R2 arousal {values['arousal']:.3f}, valence {values['valence']:.3f}"
        for features, values in c17["r2"].items()
    )
    return (
        f"Published by Choi et al. 2017 for emoMusic, which also has {c17['clips']} clips: "
        f"{listed} (their hyper-parameters were chosen on the scored folds)."
    )
