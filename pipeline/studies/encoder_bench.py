"""Bench of encoders: every encoder on every data set, and from each set to the others.

A set is a folder in the layout of a published data set, a manifest, or a file of features. Encoders
are not trained: heads over their features are cross-validated with whole groups, and the nested
choice between the encoders is scored, too. Between sets, recordings that both have are left out.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import click
import numpy as np

import mvemo
from mvemo.extract.nets import NETS, add_encoders
from mvemo.extract.nets.parts.registry import check_name
from mvemo.fuse import EvaluationSettings, stores, transfer
from mvemo.fuse.report import tables, text
from mvemo.fuse.report.tables import Column, Table
from mvemo.fuse.tasks import TASKS
from mvemo.manifests import Manifest, files, find_scheme, text_files
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.provenance import provenance

# Scores of a task: the first is what meta-analyses compare, MCC or r.
SCORES = {
    "multiclass": (("mcc", "MCC"), ("accuracy", "accuracy")),
    "multilabel": (("mcc_macro", "MCC"), ("roc_auc_macro", "AUC")),
    "regression": (("pearson_r_macro", "mean r"), ("r2_macro", "R2")),
}
CHOICE = "nested choice"
NOTES = (
    "Encoders are not trained. Linear heads over their features are cross-validated with whole "
    "groups; intervals are at 95 %, over groups.",
    "The nested choice chooses an encoder inside the training folds: its score is of clips that "
    "had no part in the choice.",
    "Transfer: heads are trained on the first set. 'itself' is the score of heads of the tested "
    "set, out of fold, and the loss is itself minus score. Recordings of both sets are left out.",
    "Seconds per clip include decoding for the first encoder of a set; decoded media are kept.",
)
TEMPLATE = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class BenchSet:
    """Features of all encoders on one data set."""

    name: str
    features: Path
    names: frozenset[str]  # of its features
    seconds: dict[str, float]  # per clip, by encoder


def run_bench(
    encoders: Sequence[str], sets: Sequence[str], out: Path, work: Path, options: Mapping[str, Any]
) -> None:
    """Score every encoder on every data set and between them, print and write the tables."""
    entries = [entry for one in encoders for entry in shared.comma_separated(one)]
    names = add_encoders(entries)
    loaded = [load_set(entry) for entry in sets]
    stored = {name for one in loaded if isinstance(one, BenchSet) for name in one.names}
    nets = [entry for entry in entries if entry in NETS or entry not in stored]
    for name in names:
        if name not in stored:
            check_name(name)
    find_scheme(options["scheme"])
    if len({one.name for one in loaded}) < len(loaded):
        listing = ", ".join(one.name for one in loaded)
        raise BadOption(f"--sets: two sets have the same name: {listing}")
    benched = [
        one if isinstance(one, BenchSet) else extract_set(one, nets, work, options["overrides"])
        for one in loaded
    ]
    present = {name for one in benched for name in one.names}
    if present.isdisjoint(names):
        raise BadOption(f"no set has {', '.join(names)}; it has {', '.join(sorted(present))}")
    scores = scores_table(benched, names, options["folds"])
    transfers = transfer_table(benched, names, options["scheme"])
    listed = [scores, *([transfers] if transfers.rows else [])]
    origin, folded = provenance(), [table.with_intervals() for table in listed]
    # Scores on different sets cannot be compared, so no best one is marked.
    for i, table in enumerate(folded):
        rows = (tuple(replace(cell, strong=False) for cell in row) for row in table.rows)
        folded[i] = replace(table, rows=tuple(rows))
    template = text.page_templates(TEMPLATE).get_template("bench.html")
    with files.replacing_together(out) as new:
        for table in listed:
            files.write_text(new / f"bench-{table.name}.csv", table.csv())
        record = {"tables": {t.name: t.record() for t in listed}, "provenance": origin}
        files.write_json(new / "bench.json", record)
        page = template.render(
            tables=folded,
            title="Encoders on data sets",
            banners=(),
            notes=NOTES,
            encoders=[str(name) for name in names],
            sets=[one.name for one in benched],
        )
        files.write_text(new / "bench.html", page)
    tables.write_paper(folded, *shared.paper_of(options))
    click.echo("\n\n".join(map(str, listed)))
    click.echo(f"\npage: {out / 'bench.html'}")


def load_set(entry: str) -> Manifest | BenchSet:
    """Return the clips of PATH or LAYOUT=PATH, or the features of a file."""
    layout, is_stated, path = entry.partition("=")
    if Path(entry).suffix.lower() == ".h5":
        return stored_set(Path(entry), {})
    if not is_stated or Path(entry).exists():
        return mvemo.load(shared.INPUT.convert(entry, None, None))
    return mvemo.load(shared.INPUT.convert(path, None, None), layout=layout)


def stored_set(features: Path, seconds: dict[str, float]) -> BenchSet:
    """Return the set whose features a file holds."""
    with mvemo.open_features(features) as cache:
        return BenchSet(cache.table.name, features, frozenset(cache.names()), seconds)


def extract_set(
    manifest: Manifest, entries: Sequence[str], work: Path, overrides: Sequence[str]
) -> BenchSet:
    """Embed the clips of a set with one encoder after the other, and measure the time."""
    if not entries:
        raise BadOption(f"{manifest.name}: has media, but no ENCODER is a net")

    folder = work / manifest.name
    features, times = folder / "features.h5", folder / "seconds.json"
    seconds: dict[str, float] = text_files.read_json(times) if times.exists() else {}
    known = stored_set(features, {}).names if features.exists() else frozenset()
    for i, encoder in enumerate(entries):
        names = add_encoders([encoder])
        if known.issuperset(names):
            continue
        tell(f"{manifest.name}: {encoder}")
        settings = [*overrides, "extract.descriptors=times", "extract.keep_folds=true"]
        settings.append(f"extract.nets={','.join(entries[: i + 1])}")
        start = time.perf_counter()
        try:
            mvemo.extract_features(
                manifest, features, profile="pretrained", settings=settings, work=folder
            )
        except MvemoError as error:
            if i == 0 or not features.exists():
                raise
            tell_note(f"{manifest.name}: {encoder} is left out: {error}")
            continue
        took = (time.perf_counter() - start) / len(manifest)
        # The layers of an encoder are computed together.
        seconds |= dict.fromkeys(map(str, names), took)
        files.write_json(times, seconds)
    return replace(stored_set(features, seconds), name=manifest.name)


def scores_table(benched: Sequence[BenchSet], encoders: Sequence[str], k: int) -> Table:
    """Return the scores of each encoder and of their nested choice on each set."""
    rows: list[list[Any]] = []
    for one in benched:
        present = [name for name in encoders if name in one.names]
        if not present:
            tell_note(f"{one.name}: has none of {', '.join(encoders)}")
            continue
        results = mvemo.evaluate(
            one.features, folds=k, models=tuple(present), kernel=False, audit=False, lld=()
        )
        scored = {model.name: model for model in results.models}
        if results.choice is not None:
            scored[CHOICE] = results.choice.nested
        for name, model in scored.items():
            row: list[Any] = [one.name, name, results.task.name, len(results.clip_ids)]
            row.append(len(set(results.groups)))
            for key, title in SCORES[results.task.name]:
                low, high = model.intervals.get(key, (float("nan"), float("nan")))
                row += [title, model.scores[key], low, high]
            rows.append([*row, one.seconds.get(name)])
    columns: list[str | Column] = ["set", "encoder", "task", "clips", "groups"]
    for number in (1, 2):
        columns.append(Column(f"metric {number}", tables.TEXT))
        columns += [f"score {number}", "low", "high"]
    return tables.table(
        [*columns, "seconds per clip"], rows, left=3, name="scores", title="Each set"
    )


def transfer_table(benched: Sequence[BenchSet], encoders: Sequence[str], scheme: str) -> Table:
    """Return the scores of heads that were trained on one set and tested on another."""
    settings = EvaluationSettings(lld=(), audit=False, kernel=False)
    titles = {task.primary_metric: task.primary_title for task in TASKS.values()}
    rows: list[list[Any]] = []
    with ExitStack() as stack:
        caches = [stack.enter_context(mvemo.open_features(one.features)) for one in benched]
        for (i, a), (j, b) in permutations(enumerate(caches), 2):
            for name in encoders:
                pair = []
                for cache in (a, b):
                    specs = [spec for spec in cache.specs if spec.name == name]
                    pair.append(stores.selected(cache, specs, np.arange(len(cache.table))))
                if not all(store.specs for store in pair):
                    continue
                try:
                    found = transfer.transfer_all(pair, scheme, settings)[0]
                except MvemoError as error:
                    tell_note(f"{benched[i].name} to {benched[j].name}: {error}")
                    break
                title, others = next(iter(found.others.items()))
                primary = titles[found.metric]
                row = [benched[i].name, benched[j].name, name, primary, found.score, found.own]
                row += [found.loss, *found.interval, title, *others, found.n_test, found.n_shared]
                rows.append(row)
    columns: list[str | Column] = ["trained on", "tested on", "encoder", "metric", "score"]
    columns += ["itself", "loss", "low", "high", Column("metric 2", tables.TEXT)]
    columns += ["score 2", "itself 2", "clips", "shared"]
    return tables.table(columns, rows, left=4, name="transfer", title="From one set to another")
