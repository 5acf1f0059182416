"""J22's experiment from end to end: songs, segments, one split, nets and ablations.

Songs are cut to segments of 10 s (3.2) and divided 7:2:1, with all segments of a song in one
part (section 3). A net is trained for 2,500 iterations (3.3) with the improved centre softmax
(2.4.2), and its own classifier decides. J22 says neither whether its split keeps songs whole
nor whether its accuracies are of segments or songs. Here the split keeps songs whole, and both
accuracies are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mvemo.extract.nets import SequenceInput, input_of, with_length, with_shared_options
from mvemo.extract.settings import LOSSES, NetSettings
from mvemo.fuse.numeric import F64, Ints
from mvemo.fuse.report.published import J22 as j22
from mvemo.fuse.songs import decide_songs
from mvemo.manifests import Manifest, holdout_of, parse_fractions, song_of
from mvemo.manifests.splits.holdout import PARTS, TEST, VALIDATION
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.studies import tags
from mvemo.pipeline.studies.convnets import confusion_table
from mvemo.pipeline.studies.core import Study, StudyMedia, matches_j22
from mvemo.pipeline.studies.crossfit import (
    FoldPredictions,
    NetJob,
    cross_fit,
    train_ahead,
    training_of,
)
from mvemo.pipeline.studies.iterations import SMOOTH, smoothed
from mvemo.pipeline.studies.output import Plot, StudyResult
from mvemo.pipeline.studies.plots import loss_lines
from mvemo.pipeline.studies.scores import Labels, Scores, score
from mvemo.pipeline.studies.segments import Cut, known_lengths
from mvemo.pipeline.studies.tables import NUMBER, PERCENT, Cell, Column, Table, capital

NETS = ("cnn", "lightcnn", "crnn")
# Values for the last of the nets, varied one setting at a time.
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
TAUS = (0.01, 0.1, 1.0, 10.0)
ABLATIONS = ("alpha", "tau", "loss")
# Thirteen trainings of J22's length take an hour of processor time even with the demo's nets.
DEMO_ITERATIONS = 200


@dataclass(frozen=True)
class Experiment:
    """Options of the experiment."""

    nets: tuple[str, ...] = NETS  # the last one is varied
    seconds: float = 10.0  # length of a segment
    cut: Cut = field(default_factory=Cut)  # how songs are cut
    # Steps of the optimizer; 0 for the nets' own epochs and early stopping.
    iterations: int = j22.FIGURE_7_ITERATIONS
    ablations: tuple[str, ...] = ABLATIONS  # what is varied, some of `ABLATIONS`

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise BadOption(f"--seconds {self.seconds:g}: a segment must be longer than 0 s")
        for name in self.ablations:
            if name not in ABLATIONS:
                raise BadOption(f"--ablations {name}: some of {', '.join(ABLATIONS)}")


@dataclass(frozen=True)
class Setup:
    """Row of the table: a net, its varied setting, and the weight of the residual phase.

    `printed` is True if J22's figures may stand next to it.
    """

    plan: NetSettings
    varied: str = ""
    value: str = ""
    alpha: float | None = None
    printed: bool = False


@dataclass(frozen=True)
class Divided:
    """Segments of songs in one split."""

    songs: Manifest
    segments: Manifest
    song: Ints  # int64 (segments,), the row of each segment's song
    parts: Ints  # int64 (songs,), 0 training, 1 validation, 2 test
    seconds: float  # sound that a net reads, from `Cut.input_seconds`

    def scores(self, outputs: F64, part: int, *, of_songs: bool) -> Scores:
        """Return the scores of one part, per segment or per song."""
        manifest, parts = (self.songs, self.parts)
        if of_songs:
            outputs = decide_songs(outputs, self.song, len(self.songs), "mean")
        else:
            manifest, parts = self.segments, self.parts[self.song]
        tested = np.where(parts == part, 0, -1)
        outputs = np.where(tested[:, None] == 0, outputs, np.nan)
        return score(Labels.of(manifest), [outputs], [tested])


def default_iterations(profile: str) -> int:
    """Return J22's number of steps, or fewer for the profile ``demo``."""
    return DEMO_ITERATIONS if profile == "demo" else j22.FIGURE_7_ITERATIONS


def run_j22(study: Study, experiment: Experiment | None = None) -> StudyResult:
    """Run J22's experiment on songs with one split: ``extract.split`` or the manifest's."""
    experiment = experiment or Experiment()
    divided, notes = _divide(study, experiment)
    setups = _setups(study, experiment)
    ready = _prepare(study, divided, setups)
    train_ahead(study, [training_of(*each) for each in ready])
    results: list[tuple[Setup, FoldPredictions]] = []
    with Progress("j22", len(setups), "training") as bar:
        for setup, each in zip(setups, ready, strict=True):
            printed = not setup.varied and matches_j22(study, each[2].plan)
            results.append((replace(setup, printed=printed), cross_fit(*each)))
            bar.step()
    labels = Labels.of(divided.segments)
    main, predictions = next(r for r in results if r[0].plan.name == experiment.nets[-1])
    tested = np.where(divided.parts[divided.song] == TEST, 0, -1)
    outputs = np.where(tested[:, None] == 0, predictions.outputs, np.nan)
    confusions = (
        (
            confusion_table(
                main.plan.name, labels.names, labels.y_true, [outputs], printed=main.printed
            ),
        )
        if labels.y_true.ndim == 1
        else ()
    )
    return StudyResult(
        name="j22",
        title="J22's experiment",
        tables=(_count_table(divided), _score_table(results, divided, labels), *confusions),
        plots=_plots(main, predictions, experiment),
        notes=(
            f"Trained for {experiment.iterations or 'as many epochs as validation asks,'} "
            f"iterations; the weights of the lowest validation loss predict, by the net's own "
            f"last layer. {experiment.cut.note()} low and high: 95 % interval over songs.",
            "RP: residual phase. Varied: one thing about the last of the nets at a time. Choose "
            "by the validation column: the best of the test column flatters.",
            *notes,
        ),
        sources=(tags.SOURCE,),
        division=f"one split, {study.settings.extract.split}, that keeps songs whole",
    )


def _divide(study: Study, experiment: Experiment) -> tuple[Divided, list[str]]:
    """Return the songs of known length, their segments and the split; with notes."""
    songs, durations, notes = known_lengths(study)
    extract = study.settings.extract
    split = holdout_of(songs, parse_fractions(extract.split), extract.fold_seed)
    segments = experiment.cut.segments(songs, experiment.seconds, durations)
    rows = {clip_id: row for row, clip_id in enumerate(songs.clip_ids)}
    song = np.array([rows[song_of(clip_id)] for clip_id in segments.clip_ids], dtype=np.int64)
    seconds = experiment.cut.input_seconds(segments, experiment.seconds, durations)
    return Divided(songs, segments, song, split.assignment, seconds), [*notes, *split.notes]


def _setups(study: Study, experiment: Experiment) -> list[Setup]:
    """Return the nets, then the last net with one setting changed at a time."""
    train: dict[str, object] = {}
    if experiment.iterations:
        # With patience beyond the last epoch nothing stops, and the best weights are kept.
        train = {"iterations": experiment.iterations, "patience": experiment.iterations + 1}
    plans = [study.plan(net, **train) for net in experiment.nets]
    for plan in plans:
        if not isinstance(input_of(plan), SequenceInput):
            raise BadOption(f"--nets {plan.name}: J22 has nets on sequences")
    main = plans[-1]
    setups = [Setup(plan) for plan in plans]
    kept = study.settings.descriptors.alpha
    reads_rp = "mfcc_rp" in input_of(main).features  # type: ignore[union-attr]
    if "alpha" in experiment.ablations and reads_rp:
        setups += [
            Setup(main, "weight of RP", f"{alpha:g}", alpha) for alpha in ALPHAS if alpha != kept
        ]
    classes = label_is_class(study.manifest)
    if "tau" in experiment.ablations and classes and "centre" in main.train.loss:
        setups += [
            Setup(replace(main, train=replace(main.train, tau=tau)), "tau", f"{tau:g}")
            for tau in TAUS
            if tau != main.train.tau
        ]
    if "loss" in experiment.ablations and classes:
        setups += [
            Setup(replace(main, train=replace(main.train, loss=loss)), "loss", loss)
            for loss in LOSSES
            if loss != main.train.loss
        ]
    return setups


def label_is_class(manifest: Manifest) -> bool:
    """Return True if labels are classes, as the losses of J22 2.4 need."""
    return np.asarray(manifest.labels).ndim == 1


def _prepare(
    study: Study, divided: Divided, setups: Sequence[Setup]
) -> list[tuple[Study, StudyMedia, NetJob]]:
    """Return the arguments of `cross_fit` for each setup."""
    plans = [
        with_length(
            with_shared_options(setup.plan, study.settings.shared),
            divided.seconds,
            study.settings.shared,
        )
        for setup in setups
    ]
    # Only the weight of the residual phase changes the descriptors.
    of_alpha: dict[float | None, tuple[Study, StudyMedia]] = {}
    for alpha in dict.fromkeys(setup.alpha for setup in setups):
        settings = study.settings
        if alpha is not None:
            settings = replace(settings, descriptors=replace(settings.descriptors, alpha=alpha))
        of_segments = replace(study, manifest=divided.segments, settings=settings)
        readers = [plan for plan, setup in zip(plans, setups, strict=True) if setup.alpha == alpha]
        of_alpha[alpha] = of_segments, of_segments.media(readers)
    return [
        (*of_alpha[s.alpha], _job(plan, s, divided)) for plan, s in zip(plans, setups, strict=True)
    ]


def _job(plan: NetSettings, setup: Setup, divided: Divided) -> NetJob:
    return NetJob(
        plan,
        np.zeros(len(divided.segments), dtype=np.int64),
        title=" ".join(filter(None, (plan.name, setup.varied, setup.value))),
        splits=divided.parts[divided.song],
        with_train_score=True,
    )


def _count_table(divided: Divided) -> Table:
    """Return a table of the numbers of songs and segments of each part."""
    of_segment = divided.parts[divided.song]
    rows: list[tuple[Cell, ...]] = [
        (name, int((divided.parts == part).sum()), int((of_segment == part).sum()))
        for part, name in enumerate(PARTS)
    ]
    rows.append(("all", len(divided.songs), len(divided.segments)))
    return Table(
        "counts",
        "Songs and segments of each part (J22: 7:2:1)",
        (Column("part"), Column("songs", NUMBER), Column("segments", NUMBER)),
        tuple(rows),
    )


def _score_table(
    results: Sequence[tuple[Setup, FoldPredictions]], divided: Divided, labels: Labels
) -> Table:
    """Return a table with a row for each training."""
    kind = PERCENT if labels.task.in_percent else NUMBER
    published = [Column("J22", PERCENT, published=True)] if labels.task.in_percent else []
    rows: list[tuple[Cell, ...]] = []
    for setup, predictions in results:
        outputs = predictions.outputs
        validation = divided.scores(outputs, VALIDATION, of_songs=False)
        segments = divided.scores(outputs, TEST, of_songs=False)
        songs = divided.scores(outputs, TEST, of_songs=True)
        rows.append(
            (
                setup.plan.name,
                setup.varied,
                setup.value,
                predictions.train_scores[0],
                validation.primary,
                *(segments.primary, segments.low, segments.high),
                songs.primary,
                _majority(divided),
                *(_printed(setup) for _ in published),
            )
        )
    return Table(
        "scores",
        f"{capital(labels.task.primary_title)} of segments and of songs, by the nets",
        (
            *(Column("net"), Column("varied"), Column("value")),
            *(Column(name, kind) for name in ("training", "validation", "test", "low", "high")),
            Column("test songs", kind),
            Column("majority" if labels.task.in_percent else "baseline", kind),
            *published,
        ),
        tuple(rows),
    )


def _majority(divided: Divided) -> float:
    """Return the baseline on the test songs' segments."""
    empty = np.full((len(divided.segments), len(divided.segments.classes)), np.nan)
    return divided.scores(empty, TEST, of_songs=False).baseline


def _printed(setup: Setup) -> float | None:
    """Return J22's figure of a net: Fig. 8 for ``crnn``, Table 3 for the others."""
    if not setup.printed:
        return None
    if setup.plan.name == "crnn":
        return j22.FIGURE_8["crnn"]
    return j22.TABLE_3.get(setup.plan.name, (None, None))[1]


def _plots(setup: Setup, predictions: FoldPredictions, experiment: Experiment) -> tuple[Plot, ...]:
    """Return a plot of the last net's loss by iterations."""
    curve = predictions.curves[0]
    if "iteration" not in curve:
        return ()
    losses = {
        f"training, mean of {SMOOTH} batches": (
            curve["iteration"],
            smoothed(curve["iteration_loss"]),
        )
    }
    title = f"Loss of {setup.plan.name} ({setup.plan.train.loss}) by iterations (as J22 Fig. 7)"
    known = j22.FIGURE_7_LOSS if setup.printed and setup.plan.name == "crnn" else None
    since = float(j22.FIGURE_7_STABLE_FROM)
    return (
        Plot(
            "loss",
            title,
            lambda axes: loss_lines(axes, losses, known, since),
            (6.4, 4.0),
        ),
    )
