"""Run of a study by its command, and its files: JSON, page, CSV, PNG and SVG."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from mvemo.extract.training import devices
from mvemo.extract.workers.pool import cores
from mvemo.fuse.report import findings, tables, text
from mvemo.manifests import files, folds_of, holdout_of
from mvemo.manifests.errors import BadOption
from mvemo.manifests.labels import label_kind
from mvemo.pipeline import provenance, settings_files
from mvemo.pipeline.clips.clip_tables import ask_about_split, clip_table, tell_unused_seed
from mvemo.pipeline.commands import options as shared
from mvemo.pipeline.studies.comparison import Draft
from mvemo.pipeline.studies.runner import cut_of, run_study
from mvemo.pipeline.studies.study import Study, open_study
from mvemo.pipeline.studies.study_file import StudyFile

TEMPLATES = Path(__file__).with_name("templates")


def conduct(file: StudyFile, options: Mapping[str, Any], values: Mapping[str, Any]) -> int:
    """Read the manifest, run a study, print and write its results; return the exit code."""
    devices.keep_freed_memory()
    folds, seed, overrides = options["folds"], options["seed"], list(options["overrides"])
    if isinstance(folds, int):
        overrides.append(settings_files.Override(f"extract.folds={folds}", f"--folds {folds}"))
    if seed is not None:
        overrides += [f"extract.seed={seed}", f"extract.fold_seed={seed}"]
    settings = settings_files.load_settings(options["profile"], overrides)
    settings = replace(settings, folds_named=shared.folds_are_named(options))
    study = open_study(
        options["manifest"],
        settings,
        **{name: options[name] for name in ("work", "root", "permute_labels", "runs")},
        jobs=options["jobs"] or default_jobs(options["profile"]),
        fold_file=folds if isinstance(folds, Path) else None,
        tasks=file.tasks,
    )
    if file.trains:
        _tell_division(study, options, splits=file.splits)
    draft = run_study(study, with_options(file, values), values)
    for banner in banners(study):
        click.echo(f"{banner.title}: {banner.text}")
    recorded = {**_recorded(file, values), "runs": options["runs"], **asdict(settings)}
    write_study(draft, recorded, options["out"])
    write_papers(draft, *shared.paper_of(options))
    click.echo(f"{draft}\n\npage: {options['out'] / (file.name + '.html')}")
    if study.failures:
        click.echo(f"{len(study.failures)} clips could not be used; the page lists them", err=True)
    return int(options["strict"] and bool(study.failures))


def with_options(file: StudyFile, values: Mapping[str, Any]) -> StudyFile:
    """Return the study file with the nets and segment lengths that the options name."""
    grid = dict(file.grid)
    nets = values.get("nets") or values.get("net")
    if nets and file.table.rows != "protocols":
        grid["net"] = nets
    if "seconds" in values:
        seconds = values["seconds"]
        grid["segment"] = seconds if isinstance(seconds, tuple) else (seconds,)
    vary = dict(file.vary)
    if "ablations" in values:
        chosen = () if values["ablations"] == ("none",) else values["ablations"]
        for name in chosen:
            if name not in vary:
                known = ", ".join(vary)
                raise BadOption(f"--ablations: unknown {name!r}; expected some of {known}, or none")
        vary = {axis: listed for axis, listed in vary.items() if axis in chosen}
    return replace(file, grid=grid, vary=vary)


def _recorded(file: StudyFile, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's own options in the form that is written to its JSON file."""
    recorded = dict(values)
    if "net" in recorded:
        recorded["net"] = values["net"][0]
    if file.name != "segments":
        for name in ("first", "tail"):
            recorded.pop(name, None)
        if "seconds" in recorded:
            recorded["cut"] = asdict(cut_of(values))
    return recorded


def default_jobs(profile: str) -> int:
    """Return 1, since large nets need memory, or 2 for profile ``demo`` on two or more cores."""
    return min(cores(), 2) if profile == "demo" else 1


def _tell_division(study: Study, options: Mapping[str, Any], *, splits: bool) -> None:
    """Refuse folds or a split that the study would not use; note a seed that has no effect."""
    manifest, extract, folds = study.manifest, study.settings.extract, options["folds"]
    if splits and folds is not None:
        raise BadOption(
            f"--folds {folds}: this study uses one split instead of folds: leave out --folds; the "
            "manifest's column 'split' names the test clips"
        )
    if not splits:
        others = "mvemo study j22 and mvemo extract --protocol holdout train and test on the split"
        ask_about_split(manifest, study.settings, who="this study", instead=others)
    if options["seed"] is not None:
        option = f"--seed {options['seed']}"
    elif extract.fold_seed:
        option = f"extract.fold_seed={extract.fold_seed}"
    else:
        return
    if splits:
        table = clip_table(manifest, split=holdout_of(manifest, seed=extract.fold_seed))
    else:
        division = study.prescribed or folds_of(manifest, extract.folds, extract.fold_seed)
        table = clip_table(manifest, division)
    tell_unused_seed(option, table, folds if isinstance(folds, Path) else None)


# --- files


def write_study(draft: Draft, settings: Mapping[str, Any], out: Path) -> None:
    """Write NAME.json, NAME.html, a CSV for each table, and a PNG and an SVG for each plot."""
    study, name = draft.study, draft.file.name
    facts, origin = (
        _facts(study, trains=draft.file.trains),
        provenance.provenance(settings=settings),
    )
    failures = dict(sorted(study.failures.items()))
    notes = [*study.notes, *draft.notes]
    title, warnings = draft.text(draft.file.title), banners(study)
    record = {
        "study": name,
        "title": title,
        "data": facts,
        "permuted_labels": study.permuted,
        "tables": {table.name: table.record() for table in draft.tables},
        "notes": [*(banner.text for banner in warnings), *notes],
        "failures": failures,
        **({"curves": draft.curves} if draft.curves else {}),
        "sources": draft.sources,
        "provenance": origin,
    }
    reasons = [tables.Column("clip", tables.ID), tables.Column("reason", tables.ID)]
    page = text.page_templates(TEMPLATES).get_template("study.html")
    with files.replacing_together(out) as new:
        for plot in draft.plots:
            files.write_text(new / f"{name}-{plot.name}.svg", plot.svg)
            files.write_bytes(new / f"{name}-{plot.name}.png", plot.png)
        for table in draft.tables:
            files.write_text(new / f"{name}-{table.name}.csv", table.csv())
        files.write_json(new / f"{name}.json", record)
        content = page.render(
            draft=draft,
            title=title,
            facts=facts,
            notes=notes,
            banners=warnings,
            tables=[table.with_intervals() for table in draft.tables],
            failures=tables.table(reasons, list(failures.items())),
            origin=origin,
            settings=json.dumps(settings, indent=1, ensure_ascii=False),
        )
        files.write_text(new / f"{name}.html", content)


def write_papers(
    draft: Draft, latex: Path | None, markdown: Path | None, style: tables.TableStyle
) -> None:
    """Write the tables as LaTeX and Markdown, with warnings and notes in their captions."""
    facts = " ".join([*(banner.text for banner in banners(draft.study)), *draft.notes])
    titled = [
        replace(table.with_intervals(), title=f"{table.title}. {facts}") for table in draft.tables
    ]
    tables.write_paper(titled, latex, markdown, style)


def banners(study: Study) -> list[findings.Banner]:
    """Return warnings about the data and the nets that a reader needs before any score."""
    manifest = study.manifest
    small = list(study.small_nets)
    return findings.data_banners(study.permuted, manifest.predicted_by, manifest.synthetic, small)


def _facts(study: Study, *, trains: bool) -> dict[str, Any]:
    manifest = study.manifest
    counts = label_kind(manifest.task).counts(manifest.labels, manifest.classes)
    n_folds = len(set(study.folds().tolist())) if trains else 0
    division = f"{n_folds} folds that keep groups whole, {study.runs} run{'s' * (study.runs != 1)}"
    if study.split is not None:
        division = f"one split, {study.settings.extract.split}, that keeps songs whole"
    return {
        "name": manifest.name,
        "digest": manifest.digest,
        "clips": len(manifest),
        "groups": len(set(manifest.groups)),
        "folds": n_folds,
        "division": division if trains else "nothing is trained",
        "runs": study.runs,
        "task": manifest.task,
        "labels": dict(zip(manifest.classes, counts, strict=True)),
        "synthetic": manifest.synthetic,
    }
