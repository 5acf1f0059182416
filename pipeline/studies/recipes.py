"""Study of the fine-tuning recipe: the score of one net without each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from mvemo.extract.nets import NETS, default_settings
from mvemo.extract.settings import NetSettings
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.starting_weights import fetch_missing_weights
from mvemo.pipeline.studies.comparison import (
    INTERVAL_NOTE,
    OTHERS,
    Compared,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    difference,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study, StudyMedia
from mvemo.pipeline.studies.embedded import HeadJob, HeadPredictor
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table

# Part -> settings that switch it off, in the recipe or (weight_decay) in the training.
PARTS: Mapping[str, Mapping[str, Any]] = {
    "probe": {"probe": False},
    "warmup": {"warmup": 0.0},
    "cosine": {"cosine": False},
    "clip_norm": {"clip_norm": 0.0},
    "layer_decay": {"layer_decay": 1.0},
    "freeze_norm": {"freeze_norm": False},
    "average": {"average": 0.0},
    "augment": {"augment": False},
    "mixup": {"mixup": 0.0},
    "weight_decay": {"weight_decay": 0.0},
}
# Further values of --parts: the recipe without all parts but the probe at once, since parts may
# replace each other, and the papers' recipe.
REST_PART = "rest"
PAPERS_PART = "papers"
FULL = "full recipe"
PROBE_ALONE = "without all but the probe"
PAPERS = "the papers' recipe"
FULL_HEAD = "full recipe, linear head"
FROZEN = "frozen, linear head"


def run_recipes(study: Study, *, net: str, parts: Sequence[str] = ()) -> StudyResult:
    """Cross-fit a net with its full recipe and without each part; also score the frozen net."""
    (plan,), notes = fetch_missing_weights([study.plan(net)], study.settings)
    plans = {FULL: plan}
    for part in chosen_parts(plan, parts):
        if part == PAPERS_PART:
            plans[PAPERS] = replace(plan, train=papers_training(plan))
        elif part == REST_PART:
            rest = (each for each in PARTS if each != "probe")
            plans[PROBE_ALONE] = reduce(without, rest, plan)
        else:
            plans[f"without {part}"] = without(plan, part)
    media = study.media([plan])
    variants = [_trained(study, media, name, each) for name, each in plans.items()]
    if plan.weights or NETS[net].brings_weights:
        variants.append(_with_head(study, media, plan, FULL_HEAD, "crossfit"))
        variants.append(_with_head(study, media, plan, FROZEN, "frozen"))
    else:
        notes.append(f"{net} starts from random weights here: there is no frozen row.")
    compared = compare(study, variants, media.manifest, study.folds_of_runs())
    labels = Labels.of(media.manifest)
    table = _with_differences(
        comparison_table(
            "scores",
            f"{net}: what each part of the recipe is worth, out of fold",
            compared,
            labels=labels,
            first=(Column("recipe"),),
            measures=("score", "low", "high", "sd", OTHERS, "baseline"),
            published=(),
        ),
        study,
        labels,
        compared,
    )
    bars = [each.bar() for each in compared]
    return StudyResult(
        name="recipes",
        title=f"Recipes of {net}",
        tables=(table,),
        plots=(score_plot("scores", f"{net} by recipe", bars, compared, labels),),
        notes=(
            INTERVAL_NOTE,
            "full less this: what the full recipe adds to the row, with its 95 % interval over "
            "groups. A part whose interval has 0 in it is worth nothing that these clips could "
            "show; of twenty parts worth nothing, one has an interval without it by chance.",
            *_finding(study, labels, compared),
            *media.left_out(media.usable(plan)),
            *notes,
            *divergence_notes(compared),
        ),
    )


def chosen_parts(plan: NetSettings, names: Sequence[str]) -> tuple[str, ...]:
    """Return the named parts, by default all parts of the recipe, ``rest`` and ``papers``."""
    known = tuple(part for part in PARTS if without(plan, part) != plan)
    if not known:
        raise BadOption(
            f"{plan.name} has no recipe in this profile: take --profile best, or set its parts, "
            f"as --set nets.{plan.name}.probe=true"
        )
    known += (REST_PART, PAPERS_PART)
    if tuple(names) == ("none",):
        return ()
    for name in names:
        if name not in known:
            raise BadOption(f"--parts {name}: the recipe of {plan.name} has {', '.join(known)}")
    return tuple(names) or known


def without(plan: NetSettings, part: str) -> NetSettings:
    """Return the plan without one part of `PARTS`.

    Examples
    --------
    >>> from mvemo.extract.settings import RecipeSettings, TrainSettings
    >>> train = TrainSettings(patience=0, recipe=RecipeSettings(probe=True, average=0.5))
    >>> without(NetSettings("i3d", train=train), "average").train.recipe.average
    0.0
    """
    changes = PARTS[part]
    if part == "weight_decay":
        return replace(plan, train=replace(plan.train, **changes))
    recipe = replace(plan.train.recipe, **changes)
    return replace(plan, train=replace(plan.train, recipe=recipe))


def papers_training(plan: NetSettings) -> Any:
    """Return the net's training of the profile ``paper``, with at most the plan's epochs."""
    train = default_settings(plan.name, "paper").train
    epochs = min(train.epochs, plan.train.epochs)
    return replace(train, epochs=epochs, batch_size=plan.train.batch_size)


def _trained(study: Study, media: StudyMedia, name: str, plan: NetSettings) -> Variant:
    predict = NetPredictor(study, media, plan, title=f"{plan.name}, {name}")
    return Variant(name, predict, cells=(name,))


def _with_head(
    study: Study, media: StudyMedia, plan: NetSettings, name: str, protocol: str
) -> Variant:
    """Return the variant with stage two's head on the embeddings of the net."""
    job = HeadJob((plan,), protocol, media.manifest, title=f"{plan.name}, {name}")
    return Variant(name, HeadPredictor(study, media, job), cells=(name,))


def _with_differences(
    table: Table, study: Study, labels: Labels, compared: Sequence[Compared]
) -> Table:
    """Add columns with the difference between the full recipe and each row."""
    kind = PERCENT if labels.task.in_percent else NUMBER
    columns = (Column("full less this", kind), Column("from", kind), Column("to", kind))
    rows = []
    for row, each in zip(table.rows, compared, strict=True):
        gap = None
        if each.variant.name != FULL:
            gap = difference(labels, compared[0], each, study.folds_of_runs())
        cells: tuple[Cell, ...] = (None,) * 3 if gap is None else (gap.value, gap.low, gap.high)
        rows.append((*row, *cells))
    return Table(table.name, table.title, (*table.columns, *columns), tuple(rows))


def _finding(study: Study, labels: Labels, compared: Sequence[Compared]) -> list[str]:
    """Return a note that compares the embeddings of the fine-tuned and the frozen net."""
    of_name = {each.variant.name: each for each in compared}
    if FROZEN not in of_name:
        return []
    gap = difference(labels, of_name[FULL_HEAD], of_name[FROZEN], study.folds_of_runs())
    if gap is None:
        return []
    beats = "do not beat" if gap.value <= 0 else "beat"
    sure = "" if gap.low > 0 or gap.high < 0 else ", which these clips are too few to be sure of"
    unit = " points" if labels.task.in_percent else ""
    value, low, high = gap.texts(labels)
    return [
        "With a linear head on both, embeddings of the net that the full recipe fine-tuned "
        f"{beats} those of the frozen net{sure}: {value}{unit} [{low} to {high}]."
    ]
