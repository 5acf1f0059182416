"""Published figures of the papers, shown next to the user's own scores.

They were measured on other data and mostly under another protocol: PL20's and Z22's nets were
fine-tuned on the clips that their heads are then tested on. They are context, never a target.

Z22's Table 2 repeats PL20's Table 3, but not always the mean accuracy. Its 0.73 for C3D + 1D is
PL20's maximum. Its 0.86 for the integrated model is PL20's minimum, and lies below the F1 of
0.88 printed under it. The figures are kept as printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvemo.fuse.models import AUDIO, INTEGRATED, VIDEO
from mvemo.fuse.report.text import fraction, percent
from mvemo.fuse.results import ModelResult, Results

LABEL = "published, other data"

# Short name -> citation.
SOURCES: Mapping[str, str] = {
    "PL20": (
        "Y. R. Pandeya and J. Lee, Deep learning-based late fusion of multimodal information "
        "for emotion classification of music video, Multimedia Tools and Applications, 2020"
    ),
    "Z22": (
        "Zhou Ping, Music emotion classification algorithm based on multimodal deep learning, "
        "2022, 2095-2163(2022)09-0110-05"
    ),
}

# The papers' classes, in the order of Z22's Table 3 and PL20's Table 1.
CLASSES = ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")


@dataclass(frozen=True)
class Published:
    """One published result in fractions; None for a score that the source does not print."""

    source: str  # short name from `SOURCES` and the table
    accuracy: float  # mean over folds if the source has folds
    # The papers do not say how F1 and AUC average over classes.
    f1: float | None = None
    roc_auc: float | None = None
    accuracy_min: float | None = None  # minimum over six folds
    accuracy_max: float | None = None  # maximum over six folds

    def texts(self) -> tuple[str, str, str]:
        """Return accuracy in percent, F1 and AUC as text; '' for a score that is not printed."""
        return (
            percent(self.accuracy),
            "" if self.f1 is None else fraction(self.f1, 2),
            "" if self.roc_auc is None else fraction(self.roc_auc),
        )


def _row(source: str, **figures: tuple[float, float, float]) -> dict[str, Published]:
    return {name: Published(source, *values) for name, values in figures.items()}


# PL20 Table 2: optimizer -> net; accuracy, F1, AUC on one test set.
PL20_TABLE_2: Mapping[str, Mapping[str, Published]] = {
    "Adam": _row(
        "PL20 Table 2, Adam",
        music1d=(0.4453, 0.41, 0.757),
        music2d=(0.6539, 0.65, 0.916),
        c3d=(0.6423, 0.64, 0.898),
        i3d=(0.6622, 0.66, 0.899),
    ),
    "SGD": _row(
        "PL20 Table 2, SGD",
        music1d=(0.4238, 0.37, 0.734),
        music2d=(0.7251, 0.72, 0.934),
        c3d=(0.6440, 0.64, 0.890),
        i3d=(0.6026, 0.59, 0.879),
    ),
    "RMSprop": _row(
        "PL20 Table 2, RMSprop",
        music1d=(0.4304, 0.39, 0.748),
        music2d=(0.6887, 0.68, 0.921),
        c3d=(0.5678, 0.56, 0.848),
        i3d=(0.5281, 0.53, 0.832),
    ),
}

# The optimizers that PL20 and Z22 choose for the nets they fuse.
CHOSEN_OPTIMIZER: Mapping[str, str] = {
    "music1d": "Adam",
    "music2d": "SGD",
    "c3d": "SGD",
    "i3d": "Adam",
}

# PL20 Table 3: mean, F1, AUC, minimum, maximum over six folds.
PL20_TABLE_3: Mapping[str, Published] = {
    "c3d+music1d": Published("PL20 Table 3", 0.70941, 0.70, 0.917, 0.68389, 0.72962),
    "i3d+music1d": Published("PL20 Table 3", 0.69781, 0.69, 0.925, 0.66003, 0.72166),
    "c3d+music2d": Published("PL20 Table 3", 0.84956, 0.84, 0.979, 0.81709, 0.87872),
    "i3d+music2d": Published("PL20 Table 3", 0.84426, 0.84, 0.977, 0.83300, 0.85884),
    "integrated": Published("PL20 Table 3", 0.88568, 0.88, 0.987, 0.86282, 0.89860),
}

# Scores that PL20's authors publish with their code for 427 test clips: accuracy, F1, AUC. The
# row of the 2D net covers the same 427 clips (392 / 427 are right).
PL20_TEST_SET: Mapping[str, Published] = {
    name: Published("PL20, the authors' files of 427 clips", accuracy, f1, auc)
    for name, accuracy, f1, auc in (
        ("music1d", 0.433, 0.43, 0.776),
        ("music2d", 0.918, 0.92, 0.991),
        ("c3d", 0.808, 0.80, 0.972),
        ("i3d", 0.892, 0.89, 0.984),
        ("c3d+music1d", 0.855, 0.85, 0.980),
        ("i3d+music1d", 0.911, 0.91, 0.988),
        ("c3d+music2d", 0.946, 0.94, 0.998),
        ("i3d+music2d", 0.953, 0.95, 0.998),
    )
}

# Z22 Table 1: optimizer -> net.
Z22_TABLE_1: Mapping[str, Mapping[str, Published]] = {
    "Adam": _row(
        "Z22 Table 1, Adam",
        music1d=(0.45, 0.41, 0.76),
        music2d=(0.65, 0.65, 0.92),
        c3d=(0.64, 0.64, 0.90),
        i3d=(0.66, 0.66, 0.90),
    ),
    "SGD": _row(
        "Z22 Table 1, SGD",
        music1d=(0.42, 0.37, 0.73),
        music2d=(0.73, 0.72, 0.93),
        c3d=(0.64, 0.64, 0.89),
        i3d=(0.60, 0.59, 0.88),
    ),
}

Z22_TABLE_2: Mapping[str, Published] = {
    "c3d+music1d": Published("Z22 Table 2", 0.73, 0.70, 0.92),
    "i3d+music1d": Published("Z22 Table 2", 0.70, 0.69, 0.93),
    "c3d+music2d": Published("Z22 Table 2", 0.85, 0.84, 0.98),
    "i3d+music2d": Published("Z22 Table 2", 0.84, 0.84, 0.98),
    "integrated": Published("Z22 Table 2", 0.86, 0.88, 0.99),
}

# Z22 Table 3, confusion matrix of the integrated model: true classes (rows) by predicted
# classes, both in the order of `CLASSES`.
Z22_TABLE_3: tuple[tuple[int, ...], ...] = (
    (72, 3, 7, 0, 5, 0),
    (4, 68, 6, 3, 0, 0),
    (2, 3, 69, 3, 4, 0),
    (2, 1, 3, 85, 7, 1),
    (3, 1, 8, 7, 63, 3),
    (2, 1, 1, 1, 3, 62),
)

# Sizes of the nets' embeddings at the papers' width; a net of another size is another net.
EMBEDDINGS: Mapping[str, int] = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}
FUSIONS: Mapping[str, tuple[str, ...]] = {
    **{f"{video}+{audio}": (video, audio) for video in VIDEO for audio in AUDIO},
    INTEGRATED: (*AUDIO, *VIDEO),
}

# K. Choi, G. Fazekas, M. Sandler and K. Cho, Transfer learning for music classification and
# regression tasks, ISMIR 2017: features -> target -> R2 on the 744 clips of emoMusic.
# Hyper-parameters were chosen on the scored folds.
C17_CLIPS = 744
C17_EMOMUSIC: Mapping[str, Mapping[str, float]] = {
    "all layers": {"arousal": 0.650, "valence": 0.457},
    "MFCC": {"arousal": 0.551, "valence": 0.267},
}


def comparable(classes: Sequence[str]) -> bool:
    """Return True if a data set has the papers' six classes, in any order and case."""
    return len(classes) == len(CLASSES) and {c.casefold() for c in classes} == {
        c.casefold() for c in CLASSES
    }


def published_for(model: str) -> Published | None:
    """Return PL20's figure for a model: Table 3, or Table 2 with the chosen optimizer."""
    if model in CHOSEN_OPTIMIZER:
        return PL20_TABLE_2[CHOSEN_OPTIMIZER[model]][model]
    return PL20_TABLE_3.get(model)


def all_published_for(model: str) -> tuple[Published, ...]:
    """Return every published figure of a model, PL20's first."""
    tables = (
        *PL20_TABLE_2.values(),
        PL20_TABLE_3,
        PL20_TEST_SET,
        *Z22_TABLE_1.values(),
        Z22_TABLE_2,
    )
    return tuple(table[model] for table in tables if model in table)


def published_name(results: Results, model: ModelResult) -> str:
    """Return the name of the published model that has the same parts as a model, or ''.

    PL20's Table 2 and Z22's Table 1 score the nets themselves, so their figures belong to a
    net's own outputs and not to a head fitted on its embedding. A fusion is a published one if
    it has exactly the papers' nets at the papers' width.
    """
    nets: tuple[str, ...]
    if model.by_net:
        name = model.features[0].removesuffix("-outputs")
        nets = (name,) if name in CHOSEN_OPTIMIZER else ()
    else:
        name, nets = model.name, FUSIONS.get(model.name, ())
        if set(nets) != set(model.features):
            return ""
    features = results.provenance.get("features", {})
    of_papers = all(_is_of_paper(features.get(net, ()), net) for net in nets)
    return name if nets and of_papers else ""


def _is_of_paper(variants: Sequence[Mapping[str, Any]], net: str) -> bool:
    """Return True if a feature is the embedding of mvemo's own net at the papers' width."""
    return bool(variants) and all(
        str(spec["extractor"]).startswith(f"net:{net} ") and spec["dim"] == EMBEDDINGS[net]
        for spec in variants
    )


def published_beside(results: Results) -> dict[str, Published]:
    """Return PL20's figure for each model that has one, under `all_published_beside`'s rules."""
    if not _beside(results):
        return {}
    listed = {m.name: published_for(published_name(results, m)) for m in results.models}
    return {name: published for name, published in listed.items() if published is not None}


def all_published_beside(results: Results) -> list[tuple[str, Published]]:
    """Return every published figure of the models, with the model's name.

    The list is empty unless the data set has the papers' six classes and its labels are not
    shuffled. It covers only the published models (`published_name`).
    """
    if not _beside(results):
        return []
    return [
        (m.name, p) for m in results.models for p in all_published_for(published_name(results, m))
    ]


def published_confusion(results: Results) -> tuple[tuple[int, ...], ...]:
    """Return Z22's Table 3 in the order of the classes; empty without the integrated model."""
    named = {published_name(results, model) for model in results.models}
    if not _beside(results) or INTEGRATED not in named:
        return ()
    order = [[c.casefold() for c in CLASSES].index(c.casefold()) for c in results.classes]
    return tuple(tuple(Z22_TABLE_3[row][column] for column in order) for row in order)


def _beside(results: Results) -> bool:
    known = results.task.published == "PL20" and comparable(results.classes)
    return known and not results.permuted


def sentence_beside(results: Results) -> str:
    """Return C17's figures if the data set is C17's by its size and targets, otherwise ''."""
    names = {name.casefold() for name in results.classes}
    of_emomusic = names == {"arousal", "valence"} and len(results.clip_ids) == C17_CLIPS
    of_people = not results.permuted and not results.predicted_by
    if results.task.published != "C17" or not of_emomusic or not of_people:
        return ""
    listed = "; ".join(
        f"{features}: R2 arousal {values['arousal']:.3f}, valence {values['valence']:.3f}"
        for features, values in C17_EMOMUSIC.items()
    )
    return (
        f"Published: Choi et al. 2017 on emoMusic, which has {C17_CLIPS} clips, too, {listed} "
        "(hyper-parameters chosen on the scored folds)."
    )
