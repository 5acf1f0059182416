"""Labels of several annotators become one, and their disagreement limits the scores."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.manifests import BadManifest, Clip, Manifest, annotators, read_manifest, write_manifest
from mvemo.manifests.annotators import ceilings_of, disagreement_of
from mvemo.manifests.errors import MvemoError


def rated(columns=(), n=4000):
    """Ratings by five annotators who deviate by 2 from a mean that deviates by 1."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(n, 1))
    given = truth + 2 * rng.normal(size=(n, 5))
    of_clip = zip(given.mean(axis=1).tolist(), given.std(axis=1, ddof=1).tolist(), strict=True)
    clips = tuple(
        Clip(f"c{i}", "", (mean,), f"g{i}", extra=(("x deviation", f"{s}"), *dict(columns).items()))
        for i, (mean, s) in enumerate(of_clip)
    )
    return Manifest("rated", "regression", ("x",), clips, Path()), truth[:, 0]


def limits(manifest, annotators=None):
    facts = disagreement_of(manifest)
    return ceilings_of(manifest.task, manifest.classes, manifest.labels, facts, annotators)


def test_the_ceiling_is_what_the_true_mean_scores():
    manifest, truth = rated({"annotators": "5"})
    (ceiling,) = limits(manifest)
    y = manifest.labels[:, 0]
    assert ceiling.scores["r2"] == pytest.approx(1 - np.mean((y - truth) ** 2) / y.var(), abs=0.02)
    assert ceiling.scores["pearson_r"] == pytest.approx(np.corrcoef(y, truth)[0, 1], abs=0.02)
    assert ceiling.deviation == pytest.approx(2, rel=0.03)
    assert (ceiling.annotators, ceiling.clips) == (pytest.approx(5), 4000)
    assert "with 5 annotators R2 cannot exceed 0.5" in ceiling.sentence()
    facts = ["target", "clips", "annotators", "deviation", "ratio", "alpha"]
    assert [*ceiling.record()] == [*facts, "icc", "r2", "pearson_r"]


def test_without_their_number_one_annotators_deviation_is_stated():
    manifest, _ = rated()
    (ceiling,) = limits(manifest)
    assert (ceiling.scores, ceiling.annotators) == ({}, None)
    assert "1 - 2.2" in ceiling.sentence()
    (given,) = limits(manifest, annotators=5)
    assert given.scores["r2"] == pytest.approx(1 - ceiling.ratio / 5)
    assert limits(annotators.with_annotators(manifest, 5)) == (given,)


def test_clips_without_deviation_and_noise_above_the_variance_of_the_labels():
    manifest, _ = rated({"annotators": "5"}, n=40)
    other = Clip("z", "", (1e6,), "z")
    more = Manifest("m", "regression", ("x",), (*manifest.clips, other), Path())
    assert limits(more) == limits(manifest)
    clips = [Clip(f"{i}", "", (i / 100,), "", extra=(("x deviation", "5"),)) for i in range(9)]
    (ceiling,) = limits(Manifest("m", "regression", ("x",), tuple(clips), Path()), annotators=2)
    assert ceiling.scores == {"r2": 0, "pearson_r": 0}
    facts = np.array([[2, 1.0, 0.5]] * 9)  # annotators, deviation, residual
    (constant,) = ceilings_of("regression", ("x",), np.ones((9, 1)), facts)
    assert (constant.scores, constant.ratio, constant.icc) == ({}, np.inf, None)
    assert constant.sentence().endswith("no ceiling is defined, because all labels are equal")


UNKNOWN = {"annotators": "5", "y deviation": "1"}


@pytest.mark.parametrize(
    ("task", "label", "extra"),
    [
        ("multiclass", "x", UNKNOWN),
        ("multilabel", "x", UNKNOWN),
        ("regression", 1.0, UNKNOWN),
        ("multiclass", "x", {"agreement": "80"}),  # without a number it is another column
    ],
)
def test_without_columns_nothing_is_known(task, label, extra):
    clip = Clip("a", "", (label,), "a", extra=(*extra.items(),))
    names = ("x",) if task == "regression" else ("x", "y")
    assert disagreement_of(Manifest("m", task, names, (clip,), Path())) is None


@pytest.mark.parametrize(
    ("task", "column", "cell", "message"),
    [
        ("regression", "x deviation", "-1", "clip 'a': x deviation: expected 0 or more, got '-1'"),
        ("regression", "x deviation", "much", "clip 'a': x deviation 'much' is not a number"),
        ("regression", "annotators", "0", "annotators: expected 1 or more, got '0'"),
        ("multiclass", "agreement", "80", "agreement: expected 0 to 1, got '80'"),
    ],
)
def test_bad_numbers_are_named(task, column, cell, message):
    label, names = ((1.0,), ("x",)) if task == "regression" else (("x",), ("x", "y"))
    extra = {"annotators": "3", "x deviation": "1", column: cell}
    clip = Clip("a", "", label, "a", extra=tuple(extra.items()))
    with pytest.raises(BadManifest, match=message) as error:
        disagreement_of(Manifest("m", task, names, (clip,), Path()))
    assert "\n" not in str(error.value)


def agreement_with_others(votes):
    """Compare each vote with the most frequent ones of the others, one by one."""
    shares = []
    for i, vote in enumerate(votes):
        counts = Counter(votes[:i] + votes[i + 1 :])
        top = [name for name, n in counts.items() if n == max(counts.values())]
        shares.append((vote in top) / len(top))
    return np.mean(shares)


@pytest.mark.parametrize("votes", ["aab", "ab", "aa", "abc", "aabb", "aabbc", "bbbaac", "aaaab"])
def test_agreement_is_with_the_majority_of_the_others(votes):
    label, extra = annotators.majority_label([*votes])
    assert label == (max(sorted({*votes}), key=votes.count),)
    assert float(dict(extra)["agreement"]) == pytest.approx(agreement_with_others(votes), abs=1e-4)
    assert dict(extra)["annotators"] == str(len(votes))
    assert annotators.majority_label(["a"]) == (("a",), [("annotators", "1")])


def table(folder, *lines):
    path = folder / "ratings.csv"
    path.write_text("\n".join([*lines, ""]))
    return path


def written(folder, *lines):
    """Return the manifest of a table, imported, written and read again."""
    write_manifest(read_manifest(table(folder, *lines), media=False), folder / "clips.csv")
    return read_manifest(folder / "clips.csv", media=False)


RATINGS = (
    *("song_id,worker_id,valence,arousal,artist", "1,ann,2,5,x", "1,bob,4,5,x"),
    *("2,ann,7,1,y", "2,cem,7,2,y", "2,bob,7,3,y", "3,ann,1,1,x"),
)


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (RATINGS, {}),
        ([row.replace("worker_id", "who") for row in RATINGS], {"annotator": "who"}),
        ([f"{i or 'id'},{row}" for i, row in enumerate(RATINGS)], {}),  # ids of rows
    ],
)
@pytest.mark.parametrize("task", [None, "regression"])
def test_rows_of_annotators_are_averaged(tmp_path, lines, options, task):
    columns = {"group": "artist", **options}
    manifest = read_manifest(table(tmp_path, *lines), media=False, columns=columns, task=task)
    assert manifest.clip_ids == ("1", "2", "3")
    assert manifest.labels.tolist() == [[3, 5], [7, 2], [1, 1]]
    assert manifest.groups == ("x", "y", "x")
    assert "labels: means of 6 rows by 3 annotators" in manifest.notes
    one, two, three = (dict(clip.extra) for clip in manifest.clips)
    assert one == {"valence deviation": "1.414", "arousal deviation": "0", "annotators": "2"}
    assert (two["annotators"], three) == ("3", {"annotators": "1"})
    write_manifest(manifest, tmp_path / "clips.csv")
    again = read_manifest(tmp_path / "clips.csv", media=False)
    assert again.clips == manifest.clips
    np.testing.assert_array_equal(disagreement_of(again), disagreement_of(manifest))
    assert disagreement_of(again).tolist()[1] == [3, 0, 1]


def test_the_majority_of_classes_is_the_label(tmp_path):
    votes = {"a": ["calm", "calm", "sad"], "b": ["sad", "calm"], "c": ["sad", "sad"]}
    rows = [f"{clip}.mp3,{i},{v}" for clip, named in votes.items() for i, v in enumerate(named)]
    manifest = read_manifest(table(tmp_path, "file,user,mood", *rows), media=False)
    assert [clip.label for clip in manifest.clips] == [("calm",), ("calm",), ("sad",)]
    assert manifest.classes == ("calm", "sad")
    assert [dict(clip.extra)["agreement"] for clip in manifest.clips] == ["0.3333", "0", "1"]
    assert "1 clips have a tie: their class is the first in alphabetical order" in manifest.notes
    (ceiling,) = limits(manifest)
    assert ceiling.scores == {"accuracy": pytest.approx(4 / 9, abs=1e-4)}
    assert ceiling.sentence().startswith("one annotator: agrees with the majority for 44.4 % of 3")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((*RATINGS[:3], "1,ann,3,3,x"), r":4: annotator 'ann' repeats the clip of line 2"),
        ((*RATINGS[:3], "1,,3,3,x"), r":4: empty annotator"),
        ((*RATINGS[:3], "1,cem,3,3,y", "2,ann,1,1,x"), r":4: its group differs .* in line 2"),
        ((*RATINGS[:3], "1,cem,3,high,x"), r":4: arousal 'high' is not a number"),
    ],
)
def test_a_bad_row_of_an_annotator_is_named(tmp_path, lines, message):
    columns = {"group": "artist", "valence": "valence", "arousal": "arousal"}
    with pytest.raises(BadManifest, match=message) as error:
        read_manifest(table(tmp_path, *lines), media=False, columns=columns)
    assert "\n" not in str(error.value)


def test_without_a_column_of_annotators_ids_must_not_repeat(tmp_path):
    rows = [row.split(",", 2)[0] + ".mp3," + row.split(",", 2)[2] for row in RATINGS[1:]]
    with pytest.raises(BadManifest, match=r"clip_id '1@0' repeats line 2"):
        read_manifest(table(tmp_path, "file,valence,arousal,artist", *rows), media=False)


OTHERS = ("annotators", "path", "label", "valence", "end", "corrected", "")


@given(
    header=st.lists(st.sampled_from(OTHERS), max_size=2, unique=True).flatmap(
        lambda others: st.permutations(["annotator", "clip_id", *others])
    ),
    cells=st.lists(st.lists(st.sampled_from("12x"), min_size=4, max_size=4), min_size=2),
    task=st.sampled_from((None, "regression", "multiclass", "multilabel")),
    ours=st.booleans(),
)
def test_any_table_is_read_or_refused_in_words(tmp_path_factory, header, cells, task, ours):
    stated = [f"# task: {task}", "# classes: annotator"] if ours and task else []
    lines = [",".join(header), *(",".join(row[: len(header)]) for row in cells)]
    file = table(tmp_path_factory.mktemp("any"), *stated, *lines)
    with suppress(MvemoError):
        read_manifest(file, media=False, task=None if stated else task)


def test_stated_disagreement_of_a_table_is_kept(tmp_path):
    rows = ["a,1,2,0.5,12", "b,3,4,0.25,10"]
    names = "clip_id,valence,arousal,valence deviation,n_annotators"
    manifest = read_manifest(table(tmp_path, names, *rows), media=False)
    assert disagreement_of(manifest)[:, :2].tolist() == [[12, 0.5], [10, 0.25]]
    rows = ["a,calm,0.75,4", "b,sad,1,5"]
    classes = table(tmp_path, "clip_id,label,agreement,annotators", *rows)
    assert disagreement_of(read_manifest(classes, media=False)).tolist() == [[4, 0.25], [5, 0]]


def test_segments_of_a_song_are_clips_even_if_a_column_names_a_person(tmp_path):
    rows = ["a.mp3,0,s,ann,1,2", "a.mp3,5,s,bob,3,4", "b.mp3,0,t,ann,5,6"]
    path = table(tmp_path, "file,start,song_id,user,valence,arousal", *rows)
    assert read_manifest(path, media=False).groups == ("s", "s", "t")


RATED = (
    *("file,listener,valence,arousal,mood", "a.mp3,p,7,6,calm", "a.mp3,q,5,,sad"),
    *("a.mp3,r,6,5,calm", "b.mp3,p,nan,,", "b.mp3,q,,,sad", "c.mp3,p,3,4,sad", "c.mp3,q,4,4,"),
)


def test_a_blank_rating_does_not_count(tmp_path):
    path = table(tmp_path, *RATED)
    with pytest.raises(BadManifest, match="csv:5: nobody gave the valence and arousal of this"):
        read_manifest(path, task="regression", media=False)
    means = read_manifest(path, task="regression", skip_unlabelled=True, media=False)
    assert [clip.label for clip in means.clips] == [(6, 5.5), (3.5, 4)]
    facts = dict(means.clips[0].extra)
    assert (facts["annotators"], facts["label"]) == ("2", "calm")
    assert facts["arousal deviation"] == "0.7071"
    assert "2 rows have a blank label or rating, which does not count" in means.notes
    assert "1 clips without a label are left out" in means.notes
    moods = read_manifest(path, task="multiclass", media=False)
    assert [clip.label for clip in moods.clips] == [("calm",), ("sad",), ("sad",)]
    assert dict(moods.clips[0].extra)["valence"] == "6"


@pytest.mark.parametrize(("name", "alpha"), [("label", 0.743), ("valence", 0.849)])
def test_a_manifest_carries_the_agreement(tmp_path, name, alpha):
    """Krippendorff's example as a row per rating, imported, written and read again."""
    ratings = ("123321412   ", "1233224125 3", " 3332342251 ", "12332441251 ")
    rows = [
        f"c{u},c{u},a{i},{'e' * (name == 'label')}{value}"
        for i, row in enumerate(ratings)
        for u, value in enumerate(row)
        if value != " "
    ]
    (ceiling,) = limits(written(tmp_path, f"clip_id,group,annotator,{name}", *rows))
    assert ceiling.alpha == pytest.approx(alpha, abs=1e-3)
    assert f"Krippendorff's alpha {ceiling.alpha:.3f}" in ceiling.sentence()
    assert ceiling.record()["alpha"] == ceiling.alpha


def test_votes_for_other_classes_do_not_count():
    extra = {"agreement": "1", "annotators": "2", "x votes": "2"}
    other = {**extra, "x votes": "1", "old votes": "1"}
    clips = tuple(
        Clip(n, "", ("x",), n, extra=(*e.items(),))
        for n, e in zip("ab", (extra, other), strict=True)
    )
    found = disagreement_of(Manifest("m", "multiclass", ("x", "y"), clips, Path()))
    assert found[0].tolist() == [2, 0, 2, 0]
    assert np.isnan(found[1, 2:]).all()


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=6), min_size=2, max_size=9))
def test_alpha_is_that_of_all_pairs(votes):
    """By definition: different pairs within clips, over different pairs of all values."""
    several = [clip for clip in votes if len(clip) > 1]
    values = [v for clip in several for v in clip]
    within = sum(
        sum(a != b for a in clip for b in clip) / (len(clip) - 1) for clip in several
    ) / max(len(values), 1)
    pairs = sum(a != b for a in values for b in values)
    expected = 1 - within / (pairs / (len(values) * (len(values) - 1))) if pairs else np.nan
    for cast in (votes, map(Counter, votes)):
        assert annotators.nominal_alpha(cast) == pytest.approx(expected, nan_ok=True)


# Shrout & Fleiss 1979, table 2: four judges rate six targets.
JUDGED = ((9, 2, 5, 8), (6, 1, 3, 2), (8, 4, 6, 8), (7, 1, 2, 6), (10, 5, 6, 9), (6, 2, 4, 7))


def test_icc_is_that_of_shrout_and_fleiss(tmp_path):
    rows = [
        f"c{u},c{u},a{i},{value},{10 * value if u else 10 * value + 5}"
        for u, row in enumerate(JUDGED)
        for i, value in enumerate(row)
    ]
    names = "clip_id,group,annotator,valence,arousal"
    valence, arousal = limits(written(tmp_path, names, *rows))
    # Their table 4: .29 and .62; all ratings of arousal of the first target are 5 higher.
    assert valence.icc == (pytest.approx(0.2898, abs=2e-4), pytest.approx(0.6201, abs=2e-4))
    assert arousal.icc != valence.icc
    assert "ICC(2,1) 0.290, ICC(2,k) 0.620" in valence.sentence()
    assert valence.record()["icc"] == valence.icc
    # Without all ratings, only alpha is known.
    for ceiling in limits(written(tmp_path, names, *rows[:9], *rows[10:])):
        assert ceiling.icc is None
        assert "ICC" not in ceiling.sentence()
        assert ceiling.alpha is not None
