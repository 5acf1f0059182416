"""Runner of study files: the rows of a grid, scored on the same folds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, SequenceInput
from mvemo.extract.nets import input_of
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies.comparison import (
    Compared,
    Draft,
    Row,
    compare,
    divergence_notes,
    main_table,
    measured,
    printed_figure,
    score_plot,
)
from mvemo.pipeline.studies.predictors import (
    HeadPredictor,
    ModelPredictor,
    NetPredictor,
    Predictor,
)
from mvemo.pipeline.studies.result import NUMBER, Column, StudyResult, Table
from mvemo.pipeline.studies.study import Cut, Songs, Study, StudyMedia, cut_study, find_songs
from mvemo.pipeline.studies.study_file import TRAINING, Figure, StudyFile, fill, matches


def run_study(study: Study, file: StudyFile, options: Mapping[str, Any]) -> StudyResult:
    """Run a study with the values of its options."""
    draft = Draft(study, file, options)
    whole, extra = file.function("run"), file.function("extra")
    if whole is not None:
        return whole(draft)
    measured(draft)  # an unknown metric is refused before anything is trained
    _compare_all(draft)
    draft.tables.append(main_table(draft))
    if file.table.counts:
        columns = [Column(name, NUMBER) for name in ("seconds", "segments", "songs")]
        columns += [Column(f.column, NUMBER, published=True) for f in _count_figures(file)]
        draft.tables.insert(0, Table("counts", file.table.counts, columns, draft.counts))
    if extra is not None:
        extra(draft)
    notes = [*map(draft.text, file.notes), *draft.findings, *draft.notes, *divergence_notes(draft)]
    return draft.result(draft.text(file.title), [score_plot(draft)], notes=notes)


def read_descriptors(plan: NetSettings, place: str) -> tuple[str, ...]:
    """Return the descriptors that a net reads; `place` is the option that names the net."""
    net_input = input_of(plan)
    if not isinstance(net_input, SequenceInput):
        raise BadOption(f"{place} {plan.name}: expected a net that reads descriptor sequences")
    return net_input.features


def cut_of(options: Mapping[str, Any]) -> Cut:
    """Return the cutting rule that ``--first`` and ``--tail`` state."""
    cut = Cut()
    return Cut(options.get("first", cut.first) or None, options.get("tail", cut.tail))


def row_values(file: StudyFile) -> list[dict[str, Any]]:
    """Return each row's values: all combinations of the grid, then variants of the last one."""
    rows = [dict(zip(file.grid, values, strict=True)) for values in product(*file.grid.values())]
    last = rows[-1]
    for axis, values in file.vary.items():
        rows += [{**last, axis: value} for value in values if value != last.get(axis)]
    return rows


def grid_row(draft: Draft, values: Mapping[str, Any]) -> Row:
    """Return the row of a grid with these values."""
    file = draft.file
    nets = values["combination"].split("+") if "combination" in values else [values["net"]]
    plans = tuple(plan_of(draft, {**values, "net": net}) for net in nets)
    protocol = values.get("protocol", "crossfit" if "combination" in values else "")
    many = [axis for axis in values if len(file.grid.get(axis, ())) != 1 or axis in file.vary]
    label = file.table.label or ", ".join(f"{{{axis}}}" for axis in many or values)
    shown = {axis: file.names.get(str(value), value) for axis, value in values.items()}
    return Row(fill(label, shown), values, plans, protocol)


def plan_of(draft: Draft, values: Mapping[str, Any]) -> NetSettings:
    """Return a net's settings with the values of a row and of the entries in ``[[set]]``."""
    study, file, options = draft.study, draft.file, draft.options
    net, settings = values["net"], dict(values)
    entries = [entry.values for entry in file.set if matches(entry.where, values)]
    if file.table.nets and not entries:
        raise BadOption(f"--nets {net}: {file.table.nets}")
    for key, value in (item for entry in entries for item in entry.items()):
        given = isinstance(value, str) and value.startswith("$")
        settings.setdefault(key, options[value[1:]] if given else value)
    train = {key: settings[key] for key in TRAINING if key in settings}
    if "optimizer" in settings:
        train["optimizer"] = settings["optimizer"].lower()
    if "lr" in train:
        train["lr"] *= options.get("rate_scale", 1.0)
    if options.get("epochs"):
        train["epochs"] = min(study.plan(net).train.epochs, options["epochs"])
    plan = study.plan(net, **train)
    if "width" in settings:
        plan = replace(plan, width=settings["width"])
    if settings.get("part", "full") != "full":
        from mvemo.pipeline.studies.protocols import without

        plan = without(plan, settings["part"])
    return plan


def _compare_all(draft: Draft) -> None:
    """Compare all rows; rows with the same segments and descriptors share their media."""
    study, file, options = draft.study, draft.file, draft.options
    lengths = [float(length) for length in file.grid.get("segment", ())]
    _check_lengths(draft, lengths)
    if len(lengths) > 1:
        draft.notes.append(cut_of(options).note())
    songs = find_songs(study) if any(lengths) else None
    draft.notes += songs.notes if songs else ()
    scale = options.get("rate_scale", 1.0)
    if scale != 1.0:
        draft.notes.append(f"All learning rates are {scale:g} times the papers' rates.")
    if options.get("epochs"):
        draft.notes.append(f"Nets are trained for at most {options['epochs']} epochs.")
    make_rows = file.function("rows")
    if make_rows is not None:
        rows, notes = make_rows(draft)
        draft.compared = _compare_group(draft, rows)
        draft.notes += notes
    else:
        _compare_grid(draft, songs)
    if not draft.compared:
        raise BadOption(
            f"{study.manifest.name}: no clip has the sound or pictures that these nets need"
        )


def _check_lengths(draft: Draft, lengths: Sequence[float]) -> None:
    """Refuse lengths that clips cannot be cut to, and nets that cannot read segments."""
    file, from_options = draft.file, "seconds" in draft.options
    many = len(lengths) > 1
    for length in lengths:
        if not (length > 0 or (length == 0 and not many)):
            place = "--seconds" if from_options else f"{file.path}: grid.segment"
            raise BadOption(f"{place} {length:g}: a segment must be longer than 0 s")
    place = "--nets" if from_options else f"{file.path}: grid.net"
    for values in row_values(file) if many else ():
        for plan in grid_row(draft, values).plans:
            read_descriptors(plan, place)


def _compare_grid(draft: Draft, songs: Songs | None) -> None:
    """Compare the rows of the grid, in groups with the same segments and descriptors."""
    every = row_values(draft.file)
    groups: dict[tuple[float, float | None], list[dict[str, Any]]] = {}
    for values in every:
        place = (float(values.get("segment", 0)), values.get("alpha"))
        groups.setdefault(place, []).append(values)
    found: dict[int, Compared] = {}  # by the identity of the row's values
    # Data that was compared already: study, segment length and rows.
    known: list[tuple[Study, float, list[dict[str, Any]]]] = []
    for (seconds, alpha), group in groups.items():
        part = draft.study.with_alpha(alpha)
        if seconds and songs is not None:
            part = cut_study(part, songs, seconds, cut_of(draft.options))
            _count(draft, part, songs, seconds)
        of_part = replace(draft, study=part)
        rows = [grid_row(of_part, values) for values in group]
        same = next((each for each in known if each[0] == part), None)
        if same is not None:
            for other, row in zip(same[2], rows, strict=True):
                if id(other) in found:
                    found[id(row.values)] = replace(found[id(other)], row=row)
            draft.notes.append(
                f"Segments of {seconds:g} s are the same as those of {same[1]:g} s, because no "
                "clip is longer; the nets are trained once."
            )
            continue
        known.append((part, seconds, group))
        found |= {id(each.row.values): each for each in _compare_group(of_part, rows, songs)}
    draft.compared = [found[id(values)] for values in every if id(values) in found]


def cut_for_nets(draft: Draft) -> Study:
    """Return the study cut to the grid's only segment length, or unchanged for 0 s."""
    seconds = float(draft.file.grid["segment"][0])
    if not seconds:
        return draft.study
    songs = find_songs(draft.study)
    draft.notes += songs.notes
    part = cut_study(draft.study, songs, seconds, cut_of(draft.options))
    _count(draft, part, songs, seconds)
    return part


def _count(draft: Draft, part: Study, songs: Songs, seconds: float) -> None:
    """Add the number of segments of a length to the table of counts or to the notes."""
    n_segments, n_songs = len(part.manifest), len(songs.manifest)
    if len(draft.file.grid["segment"]) > 1:
        row = Row("", {"segment": seconds})
        figures = [printed_figure(draft, [f], row, draft.study) for f in _count_figures(draft.file)]
        draft.counts.append((seconds, n_segments, n_songs, *figures))
        return
    hint = " Use --seconds 0 for whole clips." if "seconds" in draft.options else ""
    draft.notes.append(
        f"Nets are trained and scored on {n_segments} segments of {seconds:g} s from {n_songs} "
        f"clips; folds keep clips whole. {cut_of(draft.options).note()}{hint}"
    )


def _count_figures(file: StudyFile) -> list[Figure]:
    return [figure for figure in file.published if figure.table == "counts"]


def _compare_group(draft: Draft, rows: Sequence[Row], songs: Songs | None = None) -> list[Compared]:
    """Compare rows on the same clips; add notes on omitted clips and nets to the draft."""
    study = draft.study
    plans = {(p.name, str(p.options)): p for row in rows for p in row.plans}
    media = study.media(list(plans.values()), [d for row in rows for d in row.descriptors])
    rows = _readable(draft, media, rows)
    lengths = draft.file.grid.get("segment", ())
    what = f"segments of {study.seconds:g} s" if len(lengths) > 1 else "clips"
    masks: dict[bytes, list[str]] = {}
    for row in rows:
        usable = {plan.name: media.usable(plan) for plan in row.plans} or {"": media.described}
        for name, mask in usable.items():
            masks.setdefault(mask.tobytes(), []).append(name)
    for packed, names in masks.items():
        of_nets = f" of {', '.join(dict.fromkeys(names))}" if len(masks) > 1 else ""
        draft.notes += media.left_out(np.frombuffer(packed, np.bool_), what + of_nets)
    of_songs = songs if "song" in draft.file.measure.level else None
    return compare(study, [(row, _predictor(draft, media, row)) for row in rows], of_songs)


def _readable(draft: Draft, media: StudyMedia, rows: Sequence[Row]) -> list[Row]:
    """Return the rows without nets whose input no clip has; add a note on these nets."""
    kept, absent = [], set()
    for row in rows:
        plans = tuple(plan for plan in row.plans if media.usable(plan).any())
        absent |= {plan.name for plan in row.plans if plan not in plans}
        if plans or row.model:
            kept.append(replace(row, plans=plans))
    if absent:
        reason = next(filter(None, map(media.reason, media.manifest.clip_ids)), "")
        note = f"Nets left out because no clip has their input: {', '.join(sorted(absent))}"
        draft.notes.append(f"{note}{f' ({reason})' if reason else ''}.")
    return kept


def _predictor(draft: Draft, media: StudyMedia, row: Row) -> Predictor:
    study = draft.study
    manifest = study.shuffled() if row.shuffled else media.manifest
    if row.model is not None:
        return ModelPredictor(study, media, manifest, row.model)
    name = row.plans[0].name
    title = row.name if name in row.name else f"{name}, {row.name}"
    if row.protocol:
        return HeadPredictor(study, media, manifest, row.plans, row.protocol, title)
    on_training = "training" in draft.file.measure.metrics
    return NetPredictor(study, media, manifest, row.plans[0], title, on_training)
