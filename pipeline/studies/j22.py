"""J22's experiment from end to end: songs, segments, one split, nets and ablations.

Songs are cut into segments of 10 s (3.2) and split 7:2:1, with all segments of a song in the same
part (section 3). A net is trained for 2,500 iterations (3.3) with the improved centre softmax
(2.4.2), and its last layer predicts the class. J22 does not say whether its split keeps songs
whole, nor whether its accuracies are of segments or songs. Here the split keeps songs whole, and
both accuracies are reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mvemo.fuse.numeric import F64, Ints
from mvemo.manifests import holdout_of, parse_fractions
from mvemo.manifests.splits.assignment import PARTS, TEST, VALIDATION
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies.class_tables import confusion_table
from mvemo.pipeline.studies.comparison import Draft, Row, citations, printed_figure
from mvemo.pipeline.studies.iterations import SMOOTH, loss_plot, score_part, smoothed
from mvemo.pipeline.studies.predictors import FoldPredictions, NetPredictor
from mvemo.pipeline.studies.result import NUMBER, PERCENT, Cell, Column, StudyResult, Table
from mvemo.pipeline.studies.runner import cut_of, plan_of, read_descriptors, row_values
from mvemo.pipeline.studies.scores import Scores
from mvemo.pipeline.studies.study import Songs, Study, cut_study, find_songs, matches_j22
from mvemo.pipeline.studies.study_file import StudyFile
from mvemo.pipeline.studies.trainings import train_ahead


@dataclass(frozen=True)
class Divided:
    """Segments of songs in one split."""

    songs: Songs
    study: Study  # data of the segments
    of_songs: Ints  # int64 (songs,), part of each song: 0 training, 1 validation, 2 test
    of_segments: Ints  # int64 (segments,), part of each segment

    def scores(self, outputs: F64, part: int) -> Scores:
        """Return the scores of the segments in a part."""
        return score_part(self.study.manifest, outputs, np.where(self.of_segments == part, 0, -1))

    def test_songs(self, outputs: F64) -> Scores:
        """Return the scores of the test songs."""
        outputs = self.songs.decide(self.study.manifest, outputs)
        return score_part(self.songs.manifest, outputs, np.where(self.of_songs == TEST, 0, -1))


def run_j22(study: Study, file: StudyFile, options: Mapping[str, Any]) -> StudyResult:
    """Run J22's experiment on one split of the songs: the manifest's, or ``extract.split``."""
    seconds = float(file.grid["segment"][0])
    if not seconds > 0:
        raise BadOption(f"--seconds {seconds:g}: a segment must be longer than 0 s")
    rows_of_alpha = _j22_rows(study, file, options)
    songs, extract, cut = find_songs(study), study.settings.extract, cut_of(options)
    split = holdout_of(songs.manifest, parse_fractions(extract.split), extract.fold_seed)
    study = cut_study(study, songs, seconds, cut)
    parts = split.assignment[songs.rows(study.manifest)]
    divided = Divided(songs, study, split.assignment, parts)
    predictors = _j22_predictors(study, rows_of_alpha, parts)
    folds = np.zeros(len(parts), dtype=np.int64)
    train_ahead(study, [t for p in predictors.values() for t in p.trainings(0, folds)])
    results: list[tuple[Row, FoldPredictions]] = []
    with Progress("j22", len(predictors), "training") as bar:
        for row in rows_of_alpha:
            predictor = predictors[row.name]
            results.append((replace(row, plans=(predictor.plan,)), predictor(0, folds)))
            bar.step()
    draft = Draft(study, file, options)
    main, predictions = next(r for r in results if r[0].values["net"] == file.grid["net"][-1])
    printed = matches_j22(study, *main.plans)
    tables = [_count_table(divided), _j22_table(draft, results, divided)]
    labels, net = draft.labels, main.plans[0].name
    if labels.y_true.ndim == 1:
        outputs = [np.where((parts == TEST)[:, None], predictions.outputs, np.nan)]
        tables.append(confusion_table(net, labels.names, labels.y_true, outputs, printed=printed))
    curve, plots = predictions.curves[0], []
    if "iteration" in curve:
        losses = curve["iteration"], smoothed(curve["iteration_loss"])
        lines = {f"training, mean of {SMOOTH} batches": losses}
        title = f"Loss of {net} ({main.plans[0].train.loss}) by iterations (as J22 Fig. 7)"
        plots.append(loss_plot(title, lines, printed=printed and net == "crnn"))
    steps = options["iterations"]
    lasted = f"for {steps} iterations" if steps else "until early stopping"
    return StudyResult(
        name=file.name,
        title=file.title,
        tables=tuple(tables),
        plots=tuple(plots),
        notes=(
            f"Nets are trained {lasted}; each predicts with its last layer and the weights of its "
            f"lowest validation loss. {cut.note()} low and high: ends of the 95 % interval over "
            "songs.",
            "RP: residual phase. Rows with an entry under 'varied' change one setting of the last "
            "net. Choose by the validation column: the best test score is optimistic.",
            *songs.notes,
            *split.notes,
        ),
        sources=citations(file),
        division=f"one split, {extract.split}, that keeps songs whole",
    )


def _j22_rows(study: Study, file: StudyFile, options: Mapping[str, Any]) -> list[Row]:
    """Return a row for each net, then rows of the last net with one setting changed."""
    varied = () if options["ablations"] == ("none",) else options["ablations"]
    for name in varied:
        if name not in file.vary:
            known = ", ".join(file.vary)
            raise BadOption(f"--ablations: unknown {name!r}; expected some of {known}, or none")
    file = replace(file, vary={axis: v for axis, v in file.vary.items() if axis in varied})
    train: dict[str, Any] = {}
    if options["iterations"]:
        # Patience beyond the last epoch turns off early stopping, but keeps the best weights.
        train = {"iterations": options["iterations"], "patience": options["iterations"] + 1}
    classes = np.asarray(study.manifest.labels).ndim == 1
    rows: list[Row] = []
    base = dict.fromkeys(file.grid["net"])
    for values in row_values(file):
        plan = plan_of(study, file, {**values, **train}, options)
        message = f"--nets {plan.name}: expected a net that reads descriptor sequences"
        features = read_descriptors(plan, message)
        axis = next((axis for axis in file.vary if axis in values), "")
        value = values.get(axis, "")
        if (
            (axis in ("tau", "loss") and (not classes or plan == base[plan.name]))
            or (axis == "tau" and "centre" not in plan.train.loss)
            or (axis == "alpha" and "mfcc_rp" not in features)
            or (axis == "alpha" and value == study.settings.descriptors.alpha)
        ):
            continue
        base[plan.name] = base[plan.name] or plan
        shown = f"{value:g}" if isinstance(value, float) else value
        cells = {**values, "varied": file.names.get(axis, axis), "value": shown}
        name = " ".join(filter(None, (plan.name, cells["varied"], shown)))
        rows.append(Row(name, cells, (plan,)))
    return rows


def _j22_predictors(study: Study, rows: Sequence[Row], splits: Ints) -> dict[str, NetPredictor]:
    """Return the predictor of each row, by the row's name."""
    found = {}
    # Only alpha, the weight of the residual phase, changes the descriptors.
    for alpha in dict.fromkeys(row.values.get("alpha") for row in rows):
        part, settings = study, study.settings
        if alpha is not None:
            settings = replace(settings, descriptors=replace(settings.descriptors, alpha=alpha))
            part = replace(study, settings=settings)
        same = [row for row in rows if row.values.get("alpha") == alpha]
        plans = {row.name: study.with_segments(row.plans[0]) for row in same}
        media = part.media(list(plans.values()))
        for name, plan in plans.items():
            found[name] = NetPredictor(
                part, media, plan, media.manifest, name, with_train_score=True, splits=splits
            )
    return found


def _count_table(divided: Divided) -> Table:
    """Return a table of the numbers of songs and segments in each part."""
    both = divided.of_songs, divided.of_segments
    rows: list[tuple[Cell, ...]] = [
        (name, *(int((parts == part).sum()) for parts in both)) for part, name in enumerate(PARTS)
    ]
    rows.append(("all", *map(len, both)))
    columns = (Column("part"), Column("songs", NUMBER), Column("segments", NUMBER))
    return Table("counts", "Songs and segments of each part (J22: 7:2:1)", columns, tuple(rows))


def _j22_table(
    draft: Draft, results: Sequence[tuple[Row, FoldPredictions]], divided: Divided
) -> Table:
    """Return a table with a row for each training."""
    percent = draft.labels.task.in_percent
    kind = PERCENT if percent else NUMBER
    names = ("training", "validation", "test", "low", "high", "test songs")
    columns = [Column("net"), Column("varied"), Column("value")]
    columns += [Column(name, kind) for name in names]
    columns.append(Column("majority" if percent else "baseline", kind))
    if percent:
        columns.append(Column("J22", PERCENT, published=True))
    empty = np.full((len(divided.of_segments), len(draft.labels.names)), np.nan)
    majority = divided.scores(empty, TEST).baseline
    rows: list[tuple[Cell, ...]] = []
    for row, predictions in results:
        outputs = predictions.outputs
        test, songs = divided.scores(outputs, TEST), divided.test_songs(outputs)
        validation = divided.scores(outputs, VALIDATION).primary
        cells = [row.values["net"], row.values["varied"], row.values["value"]]
        cells += [predictions.train_scores[0], validation, test.primary, test.low, test.high]
        cells += [songs.primary, majority]
        if percent:
            figures = () if row.values["varied"] else draft.file.published
            cells.append(printed_figure(draft, figures, row, draft.study))
        rows.append(tuple(cells))
    return Table("scores", draft.text(draft.file.table.title), tuple(columns), tuple(rows))
