"""Runner of study files: the rows of a grid, scored on the same folds or the same split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from mvemo.extract import NetSettings, SequenceInput
from mvemo.extract.nets import input_of
from mvemo.fuse.report.tables import TEXT, Column, table
from mvemo.manifests import holdout_of, parse_fractions
from mvemo.manifests.errors import BadOption
from mvemo.manifests.labels import label_kind
from mvemo.manifests.splits.assignment import PARTS
from mvemo.pipeline.studies import comparison as compared_rows
from mvemo.pipeline.studies.comparison import Compared, Draft
from mvemo.pipeline.studies.plots import score_plot
from mvemo.pipeline.studies.predictors import RowPredictor, StudyRow
from mvemo.pipeline.studies.study import Cut, Songs, Study, StudyMedia, cut_study, find_songs
from mvemo.pipeline.studies.study_file import TRAINING, Figure, StudyFile, fill, matches


def run_study(study: Study, file: StudyFile, options: Mapping[str, Any]) -> Draft:
    """Run a study with the values of its options, and return its tables, plots and notes."""
    draft = Draft(study, file, options)
    whole, extra = file.function("run"), file.function("extra")
    if whole is not None:
        whole(draft)
        return _without_empty_figures(draft)
    compared_rows.measured(draft)  # an unknown metric is refused before anything is trained
    _compare_all(draft)
    if file.table.counts:
        columns = [Column("part" if file.splits else "seconds", TEXT if file.splits else "number")]
        columns += [Column("songs"), Column("segments")][:: 1 if file.splits else -1]
        columns += [Column(f.column, published=True) for f in _count_figures(file)]
        draft.tables.append(table(columns, draft.counts, title=file.table.counts, name="counts"))
    draft.tables.append(compared_rows.main_table(draft))
    if file.plot.title:
        draft.plots.append(score_plot(draft))
    if extra is not None:
        extra(draft)
    draft.notes = [
        *map(draft.text, file.notes),
        *draft.findings,
        *draft.notes,
        *compared_rows.divergence_notes(draft),
    ]
    return _without_empty_figures(draft)


def _without_empty_figures(draft: Draft) -> Draft:
    """Remove empty published columns and say so in a note."""
    empty = set()
    for place, one in enumerate(draft.tables):
        published = [i for i, column in enumerate(one.columns) if column.published]
        dropped = [i for i in published if all(row[i].value is None for row in one.rows)]
        empty |= {one.columns[i].title for i in dropped}
        draft.tables[place] = one.without(dropped)
    of_user = [figure.column for figure in draft.file.published if not figure.rule]
    draft.notes += [f"{name}: no row matches its 'where'." for name in of_user if name in empty]
    if empty - set(of_user):
        draft.notes.append(
            "Published values are shown only next to scores with the papers' classes and nets "
            "(profile paper); J22's values need segments of the published length, too."
        )
    return draft


def _descriptors(plan: NetSettings) -> tuple[str, ...]:
    """Return the descriptor sequences that a net reads; () for sound and pictures."""
    net_input = input_of(plan)
    return net_input.features if isinstance(net_input, SequenceInput) else ()


def cut_of(options: Mapping[str, Any]) -> Cut:
    """Return the cutting rule that ``--first`` and ``--tail`` state."""
    cut = Cut()
    return Cut(options.get("first", cut.first) or None, options.get("tail", cut.tail))


def row_values(file: StudyFile) -> list[dict[str, Any]]:
    """Return each row's values: all combinations of the grid, then variants of the last one."""
    rows = [dict(zip(file.grid, values, strict=True)) for values in product(*file.grid.values())]
    last = rows[-1]
    for axis, values in file.vary.items():
        rows += [
            {**last, axis: value, "varied": axis} for value in values if value != last.get(axis)
        ]
    return rows


def grid_row(draft: Draft, values: Mapping[str, Any]) -> StudyRow:
    """Return the row of a grid with these values."""
    file = draft.file
    nets = values["combination"].split("+") if "combination" in values else [values["net"]]
    plans = tuple(plan_of(draft, {**values, "net": net}) for net in nets)
    protocol = values.get("protocol", "crossfit" if "combination" in values else "")
    shown = {axis: file.names.get(str(value), value) for axis, value in values.items()}
    many = [axis for axis in values if len(file.grid.get(axis, ())) != 1 and axis in file.grid]
    label = file.table.label or ", ".join(f"{{{axis}}}" for axis in many or file.grid)
    if axis := values.get("varied"):
        label += f", {{varied}} {{{axis}}}"
        values = {**values, "varied": shown["varied"], "value": fill(f"{{{axis}}}", shown)}
    elif file.vary:
        values = {**values, "varied": "", "value": ""}
    return StudyRow(fill(label, shown), values, plans, protocol)


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
    if steps := options.get("iterations"):
        # Patience beyond the last epoch turns off early stopping, but validation clips are scored,
        # and the best weights are kept.
        train |= {"iterations": steps, "patience": steps + 1}
    plan = study.plan(net, **train)
    if "width" in settings:
        plan = replace(plan, width=settings["width"])
    if settings.get("part", "full") != "full":
        from mvemo.pipeline.studies.protocols import without

        plan = without(plan, settings["part"])
    return plan


def _compare_all(draft: Draft) -> None:
    """Compare all rows; rows with the same segments and descriptors share their media."""
    file, options = draft.file, draft.options
    lengths = [float(length) for length in file.grid.get("segment", ())]
    _check_lengths(draft, lengths)
    songs = find_songs(draft.study) if any(lengths) else None
    draft.notes += songs.notes if songs else ()
    manifest, extract = draft.study.manifest, draft.study.settings.extract
    if file.splits:
        manifest = songs.manifest if songs else manifest
        split = holdout_of(manifest, parse_fractions(extract.split), extract.fold_seed)
        draft.study = replace(draft.study, split=split)
        draft.notes += split.notes
    draft.study = replace(draft.study, first_fold=file.first_fold)
    if len(lengths) > 1:
        draft.notes.append(cut_of(options).note())
    scale = options.get("rate_scale", 1.0)
    if scale != 1.0:
        draft.notes.append(f"All learning rates are {scale:g} times the papers' rates.")
    if options.get("epochs"):
        draft.notes.append(f"Nets are trained for at most {options['epochs']} epochs.")
    if options.get("iterations"):
        draft.notes.append(f"Nets are trained for {options['iterations']} iterations.")
    make_rows = file.function("rows")
    if make_rows is not None:
        rows, notes = make_rows(draft)
        draft.compared = _compare_group(draft, rows)
        draft.notes += notes
    else:
        _compare_grid(draft, songs)
    if not draft.compared:
        raise BadOption(f"{manifest.name}: no clip has the sound or pictures that these nets need")


def _check_lengths(draft: Draft, lengths: Sequence[float]) -> None:
    """Refuse lengths that clips cannot be cut to, and nets that cannot read segments."""
    file, from_options = draft.file, "seconds" in draft.options
    segments = len(lengths) > 1 or file.measures_songs
    for length in lengths:
        if not (length > 0 or (length == 0 and not segments)):
            place = "--seconds" if from_options else f"{file.path}: grid.segment"
            raise BadOption(f"{place} {length:g}: a segment must be longer than 0 s")
    place = "--nets" if from_options else f"{file.path}: grid.net"
    for values in row_values(file) if segments else ():
        for plan in grid_row(draft, values).plans:
            if not _descriptors(plan):
                raise BadOption(
                    f"{place} {plan.name}: expected a net that reads descriptor sequences"
                )


def _compare_grid(draft: Draft, songs: Songs | None) -> None:
    """Compare the rows of the grid, in groups with the same segments and descriptors."""
    every = _effective_rows(draft)
    groups: dict[tuple[float, float | None], list[int]] = {}  # places of rows
    for i, values in enumerate(every):
        kind = float(values.get("segment", 0)), values.get("alpha")
        groups.setdefault(kind, []).append(i)
    found: dict[int, Compared] = {}
    # Data that was compared already: study, segment length and places.
    known: list[tuple[Study, float, list[int]]] = []
    for (seconds, alpha), places in groups.items():
        part = draft.study
        if alpha is not None:  # another weight of the residual phase
            described = replace(part.settings.descriptors, alpha=alpha)
            part = replace(part, settings=replace(part.settings, descriptors=described))
        if seconds and songs is not None:
            part = cut_study(part, songs, seconds, cut_of(draft.options))
            if alpha is None or not known:
                _count(draft, part, songs, seconds)
        of_part = replace(draft, study=part)
        rows = [grid_row(of_part, every[i]) for i in places]
        if same := next((each for each in known if each[0] == part), None):
            for other, i, row in zip(same[2], places, rows, strict=True):
                if other in found:
                    found[i] = replace(found[other], row=row)
            draft.notes.append(
                f"Segments of {seconds:g} s are the same as those of {same[1]:g} s, because no "
                "clip is longer; the nets are trained once."
            )
            continue
        known.append((part, seconds, places))
        place = {row.name: i for row, i in zip(rows, places, strict=True)}
        found |= {place[one.row.name]: one for one in _compare_group(of_part, rows, songs)}
    draft.compared = [found[i] for i in sorted(found)]


def _effective_rows(draft: Draft) -> list[dict[str, Any]]:
    """Return the values of all rows except variants in which nothing changes."""
    rows, study = row_values(draft.file), draft.study
    last: dict[str, Any] = next((row for row in reversed(rows) if "varied" not in row), {})
    classes = label_kind(study.manifest.task).exclusive

    def changes(values: Mapping[str, Any]) -> bool:
        axis = values.get("varied")
        if axis not in ("alpha", "tau", "loss"):
            return True
        plan = plan_of(draft, values)
        if axis == "alpha":
            changed = values[axis] != study.settings.descriptors.alpha
            return changed and "mfcc_rp" in _descriptors(plan)
        # Only classes have these losses, and only centre losses have a weight.
        has_weight = axis == "loss" or "centre" in plan.train.loss
        return classes and has_weight and plan != plan_of(draft, last)

    return list(filter(changes, rows))


def _count(draft: Draft, part: Study, songs: Songs, seconds: float) -> None:
    """Add the numbers of segments to the table of counts or to the notes."""
    n_segments, n_songs = len(part.manifest), len(songs.manifest)
    if part.split is not None and part.parts is not None:
        of_songs, of_segments = part.split.assignment, part.parts
        draft.counts += [
            [name, int((of_songs == i).sum()), int((of_segments == i).sum())]
            for i, name in enumerate(PARTS)
        ]
        draft.counts.append(["all", n_songs, n_segments])
    elif len(draft.file.grid["segment"]) > 1:
        row = StudyRow("", {"segment": seconds})
        figures = [
            compared_rows.printed_figure(draft, [figure], row, draft.study)
            for figure in _count_figures(draft.file)
        ]
        draft.counts.append([seconds, n_segments, n_songs, *figures])
        return
    hint = ""
    if "seconds" in draft.options and not draft.file.measures_songs:
        hint = " Use --seconds 0 for whole clips."
    whole = "folds keep" if part.split is None else "the split keeps"
    draft.notes.append(
        f"Nets are trained and scored on {n_segments} segments of {seconds:g} s from {n_songs} "
        f"clips; {whole} clips whole. {cut_of(draft.options).note()}{hint}"
    )


def _count_figures(file: StudyFile) -> list[Figure]:
    return [figure for figure in file.published if figure.table == "counts"]


def _compare_group(
    draft: Draft, rows: Sequence[StudyRow], songs: Songs | None = None
) -> list[Compared]:
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
        notes = media.left_out(np.frombuffer(packed, np.bool_), what + of_nets)
        draft.notes += [note for note in notes if note not in draft.notes]
    of_songs = songs if draft.file.measures_songs else None
    on_training = "training" in draft.file.measure.metrics
    each = [RowPredictor(study, media, row, with_train_score=on_training) for row in rows]
    return compared_rows.compare(study, each, of_songs)


def _readable(draft: Draft, media: StudyMedia, rows: Sequence[StudyRow]) -> list[StudyRow]:
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
