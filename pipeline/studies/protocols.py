"""Rows and findings of the studies ``protocols`` and ``recipes``.

PL20 fine-tunes its nets on the clips on which its heads are then tested (sections 3.3 and 3.4).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from mvemo.extract import NetSettings, default_settings
from mvemo.extract.nets import NETS
from mvemo.extract.pretrained import find_weights
from mvemo.extract.settings import FETCHED, RecipeSettings
from mvemo.fuse.crossval.comparisons import Comparison
from mvemo.fuse.report.published import FUSIONS
from mvemo.fuse.report.text import difference_text, score_text
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.starting_weights import fetch_missing_weights
from mvemo.pipeline.studies.comparison import Draft, difference
from mvemo.pipeline.studies.predictors import StudyRow
from mvemo.pipeline.studies.study_file import PARTS

SHARED = "shared: nets saw the test clips"
CROSSFIT = "crossfit: nets did not see the test clips"
FROZEN_NETS = "frozen: public nets, not trained here"
SHUFFLED = "shuffled labels"
# Other values of --parts. REST leaves out all parts except the probe at once, since parts may
# replace each other. PAPERS stands for the papers' recipe.
REST = "rest"
PAPERS = "papers"
FULL_HEAD = "full recipe, linear head"
FROZEN_HEAD = "frozen, linear head"


def protocol_rows(draft: Draft) -> tuple[list[StudyRow], list[str]]:
    """Return rows with one head on all nets for each protocol and kind of labels, and notes."""
    nets = draft.options.get("nets") or draft.study.settings.extract.nets
    trained = tuple(map(draft.study.plan, nets))
    frozen = tuple(frozen_plans(draft.options.get("frozen")))
    # PL20's published value is for its four nets.
    names = "integrated" if set(nets) == set(FUSIONS["integrated"]) else ""
    rows = []
    for name, plans, protocol, labels in (
        (SHARED, trained, "shared", "true"),
        (CROSSFIT, trained, "crossfit", "true"),
        (FROZEN_NETS, frozen, "frozen", "true"),
        (f"{SHUFFLED}, shared", trained, "shared", "shuffled"),
        (f"{SHUFFLED}, crossfit", trained, "crossfit", "shuffled"),
    ):
        if plans:
            values = {"protocol": name, "nets": names, "labels": labels}
            rows.append(StudyRow(name, values, plans, protocol))
    missing = (
        "There is no frozen row, because no public weights have been downloaded: run "
        "'mvemo weights get all'."
    )
    return rows, [] if frozen else [missing]


def frozen_plans(names: Sequence[str] | None = None) -> list[NetSettings]:
    """Return nets as in the profile ``pretrained`` whose public weights have been downloaded."""
    settings = load_settings("pretrained")
    public = [name for name, card in NETS.items() if card.package is not None]
    for name in names or ():
        if name not in public:
            raise BadOption(f"--frozen: unknown net {name!r}; expected one of {', '.join(public)}")
    return [
        replace(settings.nets[net], weights=FETCHED)
        for net in dict.fromkeys(names or settings.extract.nets)
        if find_weights(net) is not None
    ]


def add_protocol_findings(draft: Draft) -> None:
    """Add notes on the difference of shared and crossfit, with true and with shuffled labels."""
    for labels, shared, crossfit in (
        ("true labels", SHARED, CROSSFIT),
        (SHUFFLED, f"{SHUFFLED}, shared", f"{SHUFFLED}, crossfit"),
    ):
        gap = _gap(draft, shared, crossfit)
        if gap is not None:
            draft.findings.append(
                f"With {labels}, nets that saw the test clips change {draft.task.primary_title} "
                f"by {_gap_text(draft, gap)}."
            )


def _gap(draft: Draft, first: str, second: str) -> Comparison | None:
    """Return the comparison of row `first` with row `second`; None if a row has no scores."""
    rows = {each.row.name: each for each in draft.compared}
    return difference(rows[first], rows[second]) if {first, second} <= rows.keys() else None


def _gap_text(draft: Draft, gap: Comparison) -> str:
    """Return a difference with its unit and its interval, if there is one."""
    task = draft.task
    interval = difference_text(task, gap.interval)
    interval = interval and f" (95 % interval {interval})"
    return f"{score_text(task, gap.mean, '+')}{' points' * task.in_percent}{interval}"


def recipe_rows(draft: Draft) -> tuple[list[StudyRow], list[str]]:
    """Return rows of a net with the full recipe, without each part, and frozen; and notes."""
    net = draft.file.grid["net"][0]
    (plan,), notes = fetch_missing_weights([draft.study.plan(net)], draft.study.settings)
    named = [("full recipe", plan, "")]
    for part in chosen_parts(plan, draft.options.get("parts", ())):
        name = {REST: "probe only", PAPERS: "the papers' recipe"}.get(part, f"without {part}")
        named.append((name, without(plan, part), ""))
    if plan.weights or NETS[net].brings_weights:
        named += [(FULL_HEAD, plan, "crossfit"), (FROZEN_HEAD, plan, "frozen")]
    else:
        notes.append(f"There is no frozen row, because {net} starts from random weights here.")
    return [StudyRow(name, {"recipe": name}, (p,), protocol) for name, p, protocol in named], notes


def chosen_parts(plan: NetSettings, names: Sequence[str]) -> tuple[str, ...]:
    """Return the named parts; by default all parts of the recipe, ``rest`` and ``papers``."""
    known = tuple(part for part in PARTS if without(plan, part) != plan)
    if not known:
        raise BadOption(
            f"{plan.name} has no recipe in this profile: use --profile best, or set its parts, "
            f"for example --set nets.{plan.name}.probe=true"
        )
    known += (REST, PAPERS)
    if tuple(names) == ("none",):
        return ()
    for name in names:
        if name not in known:
            raise BadOption(f"--parts: unknown part {name!r}; {plan.name} has {', '.join(known)}")
    return tuple(names) or known


def without(plan: NetSettings, part: str) -> NetSettings:
    """Return the plan without `part`; for `REST` with only the probe, for `PAPERS` as published."""
    if part == REST:
        return reduce(without, (each for each in PARTS if each != "probe"), plan)
    if part == PAPERS:
        train = default_settings(plan.name, "paper").train
        epochs = min(train.epochs, plan.train.epochs)
        return replace(plan, train=replace(train, epochs=epochs, batch_size=plan.train.batch_size))
    if part == "weight_decay":
        return replace(plan, train=replace(plan.train, weight_decay=0.0))
    recipe = replace(plan.train.recipe, **{part: getattr(RecipeSettings(), part)})
    return replace(plan, train=replace(plan.train, recipe=recipe))


def add_recipe_findings(draft: Draft) -> None:
    """Add a note that compares the embeddings of the fine-tuned and the frozen net."""
    gap = _gap(draft, FULL_HEAD, FROZEN_HEAD)
    if gap is None:
        return
    beats = "do not beat" if gap.mean <= 0 else "beat"
    low, high = gap.interval
    sure = "" if low > 0 or high < 0 else ", but there are too few clips to be sure"
    draft.findings.append(
        "With a linear head on both, the embeddings of the fine-tuned net (full recipe) "
        f"{beats} those of the frozen net{sure}: {_gap_text(draft, gap)}."
    )
