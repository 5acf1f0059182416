"""Study T5: classical models and an RNN on descriptors (J22 3.6, Fig. 8)."""

from __future__ import annotations

from collections.abc import Mapping

from mvemo.fuse.arrays import F64, Ints
from mvemo.fuse.report import published_j22 as j22
from mvemo.manifests.labels import label_kind
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.studies.beside import j22_beside
from mvemo.pipeline.studies.classical import (
    QUADRANTS,
    REGRESSION,
    Predictor,
    classical_models,
    last_on_mel,
    predict_out_of_fold,
    quadrants_of,
)
from mvemo.pipeline.studies.comparison import (
    OTHERS,
    Compared,
    NetPredictor,
    Variant,
    compare,
    comparison_table,
    divergence_notes,
    score_plot,
)
from mvemo.pipeline.studies.core import Study
from mvemo.pipeline.studies.crossfit import FoldPredictions
from mvemo.pipeline.studies.media import StudyMedia
from mvemo.pipeline.studies.output import StudyResult
from mvemo.pipeline.studies.scores import Labels
from mvemo.pipeline.studies.tables import PERCENT, Column, Table, capital

# All descriptors except the spectrogram, which mel summarises.
DESCRIPTORS = ("mel", "mfcc", "rp", "f0", "formants", "contrast", "chroma")
RNN = "MFCC + deep RNN"
NOTE = "low and high: 95 % interval over groups, of the mean over runs. sd: over runs."


def run_baselines(study: Study, *, rnn_runs: int | None = None) -> StudyResult:
    """Cross-validate the models that J22 Fig. 8 compares with, `study.runs` times.

    Models read the mean and the standard deviation of each descriptor over a clip's frames.
    Scalers are fitted inside the training folds. Each run has its own folds and seeds.
    """
    rnn_runs = study.runs if rnn_runs is None else rnn_runs
    media = study.media([study.plan("rnn")] if rnn_runs else [], DESCRIPTORS)
    labels, kind = Labels.of(media.manifest), label_kind(study.manifest.task)
    quadrants = quadrants_of(labels.names) if kind.exclusive else None
    notes = [NOTE, *media.left_out(media.described)]
    if quadrants is None and kind.exclusive:
        notes.append(
            f"{REGRESSION} is left out: it needs classes that are quadrants of arousal and "
            f"valence ({', '.join(QUADRANTS)})."
        )
    models = classical_models(kind, len(labels.names), quadrants)
    compared = _compare_classical(study, media, models, labels)
    if rnn_runs:
        rnn = _rnn_variant(study, media)
        compared += compare(study, [rnn], media.manifest, study.folds_of_runs(rnn_runs))
    bars = [each.bar() for each in compared]
    what = f"{labels.task.primary_title} of classical models and an RNN"
    return StudyResult(
        name="baselines",
        title="Classical models and an RNN",
        tables=(_table(compared, labels, study.runs),),
        plots=(score_plot("accuracy", capital(what), bars, compared, labels),),
        notes=(*notes, *divergence_notes(compared)),
        sources=(j22.SOURCE,),
    )


def _compare_classical(
    study: Study, media: StudyMedia, models: Mapping[str, Predictor], labels: Labels
) -> list[Compared]:
    """Compare classical models on the statistics of all descriptors; one reads mel only."""
    all_rows, mel_rows = media.statistics(DESCRIPTORS), media.statistics(["mel"])
    on_mel = last_on_mel(label_kind(study.manifest.task))

    def variant(name: str, predictor: Predictor, bar: Progress) -> Variant:
        rows: F64 = mel_rows if name == on_mel else all_rows

        def predict(run: int, folds: Ints) -> FoldPredictions:
            seed = study.settings.extract.run.seed + run
            y_true, n_outputs = labels.y_true, len(labels.names)
            outputs = predict_out_of_fold(predictor, rows, y_true, folds, seed, n_outputs)
            bar.step()
            return FoldPredictions(outputs)

        # J22 prints one figure for all classifiers of its [14], which reads other features.
        return Variant(name, predict, (name,), (None,))

    with Progress("baselines", len(models) * study.runs, "run") as bar:
        variants = [variant(name, predictor, bar) for name, predictor in models.items()]
        return compare(study, variants, media.manifest, study.folds_of_runs())


def _rnn_variant(study: Study, media: StudyMedia) -> Variant:
    """Return the RNN on MFCC, trained without each fold in turn."""
    plan = study.plan("rnn")
    known = j22.FIGURE_8["rnn"] if j22_beside(study, plan, seconds=0.0) else None
    predict = NetPredictor(study, media, plan, title="rnn")
    return Variant(RNN, predict, (RNN,), (known,), known)


def _table(compared: list[Compared], labels: Labels, n_runs: int) -> Table:
    """Return a table with a row for each model, then the baseline without features."""
    task = labels.task
    table = comparison_table(
        "accuracy",
        f"{capital(task.primary_title)} of the models that J22 Fig. 8 compares with, mean of runs",
        compared,
        labels=labels,
        first=(Column("model"),),
        measures=("score", "sd over runs", "low", "high", OTHERS, "runs", "baseline"),
        published=(Column("J22 Fig. 8", PERCENT, published=True),),
    )
    score = compared[0].scores.baseline
    known = {task.primary_title: score, "runs": n_runs, "majority": score, "baseline": score}
    last = (task.baseline_name, *(known.get(column.name) for column in table.columns[1:]))
    return Table(table.name, table.title, table.columns, (*table.rows, last))
