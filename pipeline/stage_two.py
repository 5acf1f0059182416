"""Stage two as a function: evaluation of a feature cache, report, heads and final model."""

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.fuse import EvaluationSettings, Results, evaluate, format_table, write_report
from mvemo.fuse.final import building, model_files
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.report import figures, report_files, score_tables, tables
from mvemo.manifests import read_folds
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.files import replacing_together
from mvemo.pipeline import model_nets, settings_files
from mvemo.pipeline.clips.clip_tables import links_of_cache, links_of_folder, prescribed_by
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.models.boxed import write_hub_card
from mvemo.pipeline.provenance import provenance


@dataclass(frozen=True)
class FinalSettings:
    """Options of a final model for new clips."""

    folder: Path  # output folder
    work: Path | None = None  # folder of stage one with the trained nets; None for the cache's
    about: Mapping[str, Any] = field(default_factory=dict)  # card text, from `read_about`
    degradations: Path | None = None  # features of changed copies of the clips, for the alarms


@dataclass(frozen=True)
class FuseRequest:
    """Request for a run of stage two."""

    features: Path  # feature cache, or folder of shards
    settings: EvaluationSettings
    out: Path  # folder of the report
    protocol: str | None = None  # protocol that the features must have
    fold_file: Path | None = None  # folds that replace those of the cache
    final: FinalSettings | None = None  # model for new clips to write
    save_heads: bool = True
    figures: Path | None = None  # folder for figures as files
    mlflow: str | None = None  # tracking store of MLflow
    # LaTeX and Markdown files for the tables of a paper, and their style.
    paper: tuple[Path | None, Path | None, tables.TableStyle | None] = (None, None, None)
    media: Path | None = None  # folder of the clips' files for the report's players


def run_fuse(request: FuseRequest) -> str:
    """Evaluate all models over the cache, write the report, and return the terminal's text."""
    out, final, to = request.out, request.final, None
    if request.mlflow is not None:
        _import_mlflow()
    with open_cache(request.features) as cache:
        results, settings = _evaluated(cache, request)
        model = None if final is None else _built(cache, results, settings, final)
    lines = [format_table(results), "", f"report: {out / 'report.html'}"]
    if request.save_heads:
        lines.append(f"heads: {out / 'heads.npz'}")
    # Report and model are replaced together: if one fails, those of an older run are kept.
    try:
        with ExitStack() as stack:
            new = stack.enter_context(replacing_together(out, remove=report_files.RUN_FILES))
            write_report(results, new, heads=request.save_heads)
            if final is not None and isinstance(model, FinalModel):
                to = final.folder
                folder = stack.enter_context(replacing_together(to))
                title = results.task.primary_title
                lines += _write_model(model, final, request.features.parent, folder, title)
    except MvemoError:
        # If the files cannot be written, at least the table of scores is printed.
        click.echo(lines[0])
        raise
    if request.figures is not None:
        n_files = len(figures.write_figures(results, request.figures))
        lines.append(f"figures: {n_files} files in {request.figures}")
    if request.mlflow is not None:
        run = _log_run(results, settings.record(), out, request.mlflow)
        lines.append(f"run of MLflow: {run} in {request.mlflow}")
    tables.write_paper(score_tables.results_tables(results), *request.paper)
    tell_stale_model(out, to)
    if isinstance(model, MvemoError):
        # The report has been written, but no model could be built.
        click.echo("\n".join(lines))
        raise model
    return "\n".join(lines)


def _evaluated(cache: Cache, request: FuseRequest) -> tuple[Results, EvaluationSettings]:
    """Return the results of all models (with provenance and links), and the settings used."""
    settings, features, out = request.settings, request.features, request.out
    protocols = sorted({spec.protocol for spec in cache.specs if spec.kind == "vector"})
    if request.protocol is not None and protocols and request.protocol not in protocols:
        raise BadOption(
            f"{features}: expected features of protocol {request.protocol}, got "
            f"{', '.join(protocols)}"
        )
    if request.fold_file is not None:
        settings = replace(settings, folds=read_folds(request.fold_file, cache.table))
    why = _folds_without_seed(cache, settings, request.fold_file)
    if settings.seed is not None and why:
        tell_note(f"--seed {settings.seed} does not change the folds: {why}")
    if request.final is not None and settings.models is None:
        # Late fusion is added, because it can predict clips without some of the features.
        settings = replace(settings, late=True)
    results = evaluate(cache, settings)
    named = [("heads", one.head) for one in settings.estimators]
    named += [("metrics", name) for name in results.models[0].scores]
    facts = {"cache": features.name, "stage_one": cache.provenance}
    origin = {**results.provenance, **provenance(named, **facts)}
    links = links_of_cache(cache, out)
    if request.media is not None:
        links = links_of_folder(results.clip_ids, request.media, out)
    return replace(results, media=links, provenance=origin), settings


def _built(
    cache: Cache, results: Results, settings: EvaluationSettings, final: FinalSettings
) -> FinalModel | MvemoError:
    """Return the model for new clips, or the error if none can be built."""
    preferred = None if results.choice is None else results.choice.model
    if preferred in [one.name for one in settings.estimators]:
        tell_note(
            f"the recommended model {preferred} is an estimator of scikit-learn, which can "
            "only be saved as a pickle: the model folder has the best of the other models"
        )
    try:
        with (
            nullcontext()
            if final.degradations is None
            else open_cache(final.degradations) as degraded
        ):
            return building.build_model(cache, results, settings, preferred, degraded)
    except MvemoError as error:
        return error


def tell_stale_model(out: Path, written: Path | None = None) -> None:
    """Print a note if a model in a run's folder is from an earlier run."""
    model = out / "model"
    if (model / "model.json").is_file() and (
        written is None or written.resolve() != model.resolve()
    ):
        tell_note(f"{model} is from an earlier run, not from this report: replace it with --final")


def _folds_without_seed(cache: Cache, settings: EvaluationSettings, fold_file: Path | None) -> str:
    """Return the reason why a seed does not change the folds, or '' if it does."""
    table = cache.table
    if fold_file is None:
        if any(spec.fold is not None for spec in cache.specs):
            return "they are the folds that the nets were trained for"
        if settings.folds not in (None, table.k):
            return ""
        if table.splits is not None and settings.folds is None:
            return "the clips have one prescribed split"
    return prescribed_by(table, fold_file)


def _write_model(
    model: FinalModel, final: FinalSettings, source: Path, folder: Path, title: str
) -> list[str]:
    """Write the model's files into a folder, and return lines for the terminal."""
    files: tuple[str, ...] = ()
    lines = [f"model: {final.folder}"]
    if model_nets.trained_specs(model):
        work = source if final.work is None else final.work
        files, absent = model_nets.copy_nets(model, work, folder)
        if absent:
            lines.append(
                f"note: 'mvemo predict' will need the trained nets {', '.join(absent)}, which are "
                f"not in {work / 'nets'}: run the same command again with --work WORK, the folder "
                "of 'mvemo extract'"
            )
    if final.about:
        model = replace(model, facts={**model.facts, "about": dict(final.about)})
    model_files.save_model(folder, model, files)
    write_hub_card(folder, final.folder.name)
    return [*lines, *_promise(model, title)]


def _promise(model: FinalModel, title: str) -> list[str]:
    """Return lines that name the model for new clips and its expected score, named `title`."""
    best, nested = model.predictors[0], model.facts.get("nested")
    if nested is not None and nested["model"] == best.name:
        return [f"it predicts with {best.name}, as recommended: expect the score stated above"]
    if best.expected["mean"] is None:
        return []
    score = f"{title} {best.expected['mean']:.3f}"
    if nested is None:
        return [
            f"it predicts with {best.name}, the best of {len(model.heads.models)} models ({score}, "
            "which is a little too high, as it was chosen by this score)"
        ]
    return [
        f"it predicts with {best.name} ({score}): {nested['model']} needs features that 'mvemo "
        "predict' cannot compute for new clips"
    ]


def _log_run(results: Results, settings: Mapping[str, Any], out: Path, tracking: str) -> str:
    """Log a run to a tracking store, a folder or a URI of MLflow; return the id of the run."""
    mlflow = _import_mlflow()
    if "://" not in tracking:
        # MLflow refuses to keep runs in a folder unless this variable is set.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        tracking = Path(tracking).resolve().as_uri()
    metrics = {}
    for model in results.models:
        scores = {**model.scores, results.task.primary_metric: results.primary_mean(model)}
        for name, value in scores.items():
            if np.isfinite(value):
                metrics[re.sub(r"[^\w\-. /:]", "-", f"{model.name}/{name}")] = float(value)
    try:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_experiment(results.name)
        with mlflow.start_run(run_name=out.name) as run:
            # MLflow does not accept values longer than 500 characters.
            mlflow.log_params(
                {key: str(value)[:500] for key, value in settings_files.dotted(settings)}
            )
            mlflow.log_metrics(metrics)
            for file in ("report.html", "metrics.json", "predictions.csv"):
                mlflow.log_artifact(str(out / file))
    except Exception as error:
        raise BadOption(f"--mlflow {tracking}: {' '.join(str(error).split())[:300]}") from error
    return str(run.info.run_id)


def _import_mlflow() -> Any:
    try:
        return import_module("mlflow")
    except ImportError as error:
        raise BadOption("--mlflow: needs the package mlflow: pip install mlflow") from error
