"""Rule for published figures: next to which scores of a study they stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mvemo.extract.nets import with_length
from mvemo.fuse.report import published
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.comparison import Draft, printed_figure
from mvemo.pipeline.studies.result import Column, StudyResult, Table, without_empty_figures
from mvemo.pipeline.studies.runner import grid_row
from mvemo.pipeline.studies.study import Study, matches_j22, matches_pl20
from mvemo.pipeline.studies.study_file import built_in

PL20 = published.CLASSES
J22 = ("calm", "happy", "sad", "angry")


def made_study(
    classes: tuple[str, ...], profile: str = "paper", *settings: str, permuted: bool = False
) -> Study:
    clips = tuple(Clip(name, f"{name}.wav", (name,), name) for name in classes)
    manifest = Manifest("made", "multiclass", classes, clips, Path())
    return Study(manifest, load_settings(profile, settings), Path("work"), permuted)


def test_pl20s_figures_are_beside_its_nets_and_its_classes_alone() -> None:
    study = made_study(PL20)
    nets = [study.plan(net) for net in ("music1d", "music2d", "c3d", "i3d")]
    assert matches_pl20(study, *nets)
    # With the weights that the paper starts from C3D has inputs of another scale.
    given = made_study(PL20, "paper", "nets.c3d.weights=sports1m.npz")
    assert given.plan("c3d").options != study.plan("c3d").options
    assert matches_pl20(given, given.plan("c3d"))
    for other in (
        made_study(J22),
        made_study(PL20, permuted=True),
        made_study(PL20, "demo"),
        made_study(PL20, "c17"),
        made_study(PL20, "paper", "nets.music2d.width=0.25"),
        made_study(PL20, "paper", "nets.music2d.options={seconds=5.0}"),
    ):
        assert not matches_pl20(other, other.plan("music2d"))


def test_j22s_figures_are_beside_segments_of_the_printed_length() -> None:
    study = made_study(J22)
    plan = with_length(study.plan("crnn"), 10.0, study.settings.shared)
    assert matches_j22(study, plan)
    assert not matches_j22(study, plan, seconds=3.0)
    assert not matches_j22(study, with_length(plan, 4.0, study.settings.shared))
    assert not matches_j22(study, replace(plan, width=0.25))
    assert not matches_j22(made_study(PL20), plan)
    features = made_study(J22, "paper", "descriptors.alpha=0.25")
    assert not matches_j22(features, plan)


def test_columns_without_a_figure_are_left_out_and_the_page_says_why() -> None:
    columns = (Column("net"), Column("J22", "percent", published=True))
    with_figure = StudyResult("s", "S", (Table("t", "T", columns, (("crnn", 0.9),)),), ())
    assert without_empty_figures(with_figure) is with_figure
    empty = replace(with_figure, tables=(Table("t", "T", columns, (("crnn", None),)),))
    (table,), (note,) = without_empty_figures(empty).tables, without_empty_figures(empty).notes
    assert (table.columns, table.rows) == (columns[:1], (("crnn",),))
    assert note.startswith("Printed figures stand only beside the papers' classes and nets")


@pytest.mark.parametrize(("scale", "printed"), [(1.0, 0.4453), (2.0, None)])
def test_figures_of_optimizers_are_beside_the_papers_rates(
    scale: float, printed: float | None
) -> None:
    study, file = made_study(PL20), built_in()["optimizers"]
    row = grid_row(study, file, {"net": "music1d", "optimizer": "Adam"}, {"rate_scale": scale})
    assert row.plans[0].train.lr == 1e-3 * scale
    draft = Draft(study, file, {"rate_scale": scale})
    assert printed_figure(draft, file.published[0], row, study) == printed
