"""Data of a study: labels, folds, segments, media, and the rule for published figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from study_samples import make_set, opened

from mvemo.extract.nets import with_length
from mvemo.fuse.report.published import CLASSES as PL20
from mvemo.manifests import Clip, Manifest, folds_of, read_manifest, song_of, write_folds
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.comparison import Draft, printed_figure
from mvemo.pipeline.studies.runner import _effective_rows, grid_row
from mvemo.pipeline.studies.study import (
    Cut,
    Songs,
    Study,
    cut_study,
    find_songs,
    matches_j22,
    matches_pl20,
    open_study,
)
from mvemo.pipeline.studies.study_file import built_in

J22 = ("calm", "happy", "sad", "angry")


def made_study(classes, profile="paper", *settings, permuted=False):
    clips = tuple(Clip(name, f"{name}.wav", (name,), name) for name in classes)
    manifest = Manifest("made", "multiclass", classes, clips, Path())
    return Study(manifest, load_settings(profile, settings), Path("work"), permuted)


def test_pl20s_figures_are_beside_its_nets_and_its_classes_alone():
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


def test_j22s_figures_are_beside_segments_of_the_printed_length():
    study = made_study(J22)
    plan = with_length(study.plan("crnn"), 10.0, study.settings.shared)
    assert matches_j22(study, plan)
    assert not matches_j22(study, plan, seconds=3.0)
    assert not matches_j22(study, with_length(plan, 4.0, study.settings.shared))
    assert not matches_j22(study, replace(plan, width=0.25))
    assert not matches_j22(made_study(PL20), plan)
    features = made_study(J22, "paper", "descriptors.alpha=0.25")
    assert not matches_j22(features, plan)


@pytest.mark.parametrize(("scale", "printed"), [(1.0, 0.4453), (2.0, None)])
def test_figures_of_optimizers_are_beside_the_papers_rates(scale, printed):
    study, file = made_study(PL20), built_in()["optimizers"]
    draft = Draft(study, file, {"rate_scale": scale})
    row = grid_row(draft, {"net": "music1d", "optimizer": "Adam"})
    assert row.plans[0].train.lr == 1e-3 * scale
    assert printed_figure(draft, file.published[:1], row, study) == printed


def test_chosen_rates_are_those_of_the_paper_profile():
    study, file = made_study(PL20), built_in()["optimizers"]
    for net, chosen in (("music1d", "Adam"), ("music2d", "SGD"), ("c3d", "SGD"), ("i3d", "Adam")):
        row = grid_row(Draft(study, file, {}), {"net": net, "optimizer": chosen})
        (plan,), own = row.plans, study.settings.nets[net]
        assert (plan.train.lr, plan.train.momentum) == (own.train.lr, own.train.momentum)


def test_variants_without_an_effect_are_left_out():
    names = ("varied", "value")

    def variants(manifest, *nets):
        file = replace(built_in()["j22"], grid={"net": nets, "segment": (10.0,)})
        draft = Draft(Study(manifest, load_settings("paper"), Path()), file, {"iterations": 2})
        rows = [grid_row(draft, values) for values in _effective_rows(draft)]
        assert [row.plans[0].train.patience for row in rows] == [3] * len(rows)
        assert [row.name.split(", ")[0] for row in rows[: len(nets)]] == list(nets)
        return [tuple(row.values[name] for name in names) for row in rows[len(nets) :]]

    # The net reads the residual phase (0.5 is its weight), and has J22's improved centre loss.
    losses = [("loss", name) for name in ("softmax", "angular", "centre")]
    weights = [("tau", value) for value in ("0.01", "0.1", "10")]
    manifest = made_study(J22).manifest
    found = variants(manifest, "cnn", "crnn")
    alphas = [("weight of RP", value) for value in ("0", "0.25", "0.75", "1")]
    assert [each for each in found if each[0] == "weight of RP"] == alphas
    assert [each for each in found if each[0] == "loss"] == losses
    assert [each for each in found if each[0] == "tau"] == weights
    # Ratings have no such losses, and the RNN reads no residual phase.
    ratings = Manifest("r", "regression", ("valence",), (Clip("a", "a.wav", (1.0,), "a"),), Path())
    assert {axis for axis, _ in variants(ratings, "crnn")} == {"weight of RP"}
    assert {axis for axis, _ in variants(manifest, "rnn")} == {"loss"}


def test_clips_that_cannot_be_read_are_told(tmp_path):
    study = opened(tmp_path)
    (tmp_path / "set" / "sad1.wav").write_bytes(b"no sound")
    media = study.media(descriptors=["mel"])
    assert media.described.tolist() == [True] * 7 + [False]
    (note,) = media.left_out(media.described)
    assert note.startswith(
        "1 of 8 clips could not be used and do not count in any score; the first is sad1: "
    )
    assert np.isnan(media.statistics(("mel",))).all(axis=1).tolist() == (~media.described).tolist()
    assert media.left_out(np.ones(8, dtype=bool)) == ()


def test_folds_of_a_file_leave_the_manifest_as_it_is(tmp_path):
    path = make_set(tmp_path)
    manifest = read_manifest(path)
    folds = folds_of(manifest, 3, 5)
    write_folds(folds, tmp_path / "folds.csv")
    options = {"work": tmp_path, "runs": 2, "fold_file": tmp_path / "folds.csv"}
    study = open_study(path, load_settings("demo"), **options)
    assert study.manifest.digest == manifest.digest
    assert study.settings.extract.folds == 3
    for run in range(2):
        assert study.folds(run).tolist() == folds.assignment.tolist()
    # Without the clips that cannot be read, the others stay in their folds.
    part = replace(study, manifest=replace(manifest, clips=manifest.clips[5:]))
    assert part.folds().tolist() == folds.assignment[5:].tolist()


def test_segments_of_a_song_are_in_its_fold(tmp_path):
    study = opened(tmp_path)
    segments = cut_study(study, find_songs(study), 0.25, Cut())
    assert len(segments.manifest) == 3 * len(study.manifest)
    of_song = dict(zip(study.manifest.clip_ids, study.folds().tolist(), strict=True))
    songs = [song_of(clip_id) for clip_id in segments.manifest.clip_ids]
    assert segments.folds().tolist() == [of_song[song] for song in songs]
    labels = {(song_of(clip.clip_id), clip.label) for clip in segments.shuffled().clips}
    assert len(labels) == len(study.manifest)


def test_j22s_counts_are_those_of_whole_segments_of_the_first_half_minute():
    clips = tuple(Clip(f"song {i}", f"{i}.mp3", ("sad",), f"song {i}") for i in range(3))
    manifest = Manifest("songs", "multiclass", ("sad", "happy"), clips, Path())
    songs = Songs(manifest, {"song 0": 30.0, "song 1": 241.5, "song 2": 12.0}, ())
    study = Study(manifest, load_settings("paper"), Path())

    def count(seconds, cut):
        return len(cut_study(study, songs, seconds, cut).manifest)

    counts = {s: count(s, Cut()) for s in (3.0, 5.0, 10.0, 16.0)}
    # 30 s give one segment of 16 s; a song that is shorter than a segment gives one, too.
    assert counts == {3.0: 10 + 10 + 4, 5.0: 6 + 6 + 2, 10.0: 3 + 3 + 1, 16.0: 3}
    assert count(16.0, Cut(first=None, tail="half")) == 2 + 15 + 1
