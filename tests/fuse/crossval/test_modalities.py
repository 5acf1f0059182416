"""A third modality: fusions of any number, and what predicts where some are missing."""

import numpy as np
import pytest
from click.testing import CliRunner
from feature_samples import features, frozen_cache, make_table
from fuse_samples import by_name, evaluated

from mvemo.cache import open_cache
from mvemo.cache.spec import check_modality
from mvemo.fuse import metrics_dict
from mvemo.fuse.final.building import build_model
from mvemo.fuse.models import LATE, STACKED, models_of, parts_of
from mvemo.fuse.report.score_tables import without_modality_table
from mvemo.fuse.report.summary import scoring_note
from mvemo.pipeline.cli import mvemo

NO_LYRICS, SOUND_ALONE, LYRICS_ALONE = [3, 40], [8], [11]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Sound and pictures of our own, lyrics from a CSV; some clips lack some of them."""
    folder = tmp_path_factory.mktemp("three")
    table = make_table(n=48, k=3, classes=("calm", "tense"))
    missing = {"music1d": LYRICS_ALONE, "i3d": [*SOUND_ALONE, *LYRICS_ALONE]}
    path = frozen_cache(
        folder / "features.h5", table, strength=0.5, names=("music1d", "i3d"), missing=missing
    )
    lyrics = features(table, "bert", 4, 0.7)
    rows = [i for i in range(48) if i not in (*NO_LYRICS, *SOUND_ALONE)]
    lines = [",".join([table.clip_ids[i], *map(repr, lyrics[i].tolist())]) for i in rows]
    (folder / "bert.csv").write_text("\n".join(["clip_id,a,b,c,d", *lines]))
    words = [path, folder / "bert.csv", "--feature", "bert", "--modality", "lyrics"]
    done = CliRunner().invoke(mvemo, ["cache", "import", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert "lyrics is a modality in addition to audio and video" in done.stderr
    return path


@pytest.fixture(scope="module")
def results(cache):
    options = dict.fromkeys(("refit", "stacked", "late", "kernel", "missing_modality"), True)
    return evaluated(cache, C=0.1, **options)


def test_a_feature_that_few_clips_have_makes_no_model(tmp_path):
    table = make_table(n=48, k=3, classes=("calm", "tense"))
    names, missing = ("music1d", "music2d", "i3d"), {"i3d": range(3, 48)}
    path = frozen_cache(tmp_path / "f.h5", table, names=names, missing=missing)
    results = evaluated(path)
    assert [model.name for model in results.models] == ["music1d", "music2d", "integrated"]
    assert not without_modality_table(results)
    assert "i3d is left out: only 3 of 48 clips have it." in scoring_note(results)


def test_a_clip_is_predicted_by_the_head_of_what_it_has(results):
    found = by_name(results)
    for name in ("i3d+music1d+bert", "integrated"):
        fusion = found[name]
        assert fusion.valid.all()
        assert fusion.n_fallback == 4
        others = {"i3d+music1d": NO_LYRICS, "music1d": SOUND_ALONE, "bert": LYRICS_ALONE}
        for other, rows in others.items():
            expected = found[other].outputs[rows]
            np.testing.assert_allclose(fusion.outputs[rows], expected, atol=1e-6)
    said = found["bert"].y_pred[LYRICS_ALONE]
    for name in (STACKED, LATE):
        assert found[name].valid.all()
        np.testing.assert_equal(found[name].y_pred[LYRICS_ALONE], said)


def test_a_stack_of_pairs_falls_back_on_what_is_left_of_one(cache):
    pairs = ("i3d+music1d", "music1d+bert")
    found = by_name(evaluated(cache, models=(*pairs, STACKED), missing_modality=True))
    # No model needs the lyrics only.
    expected = found["music1d+bert"].outputs[LYRICS_ALONE]
    np.testing.assert_array_equal(found[STACKED].outputs[LYRICS_ALONE], expected)
    assert np.isfinite(expected).all()


def test_the_table_has_a_column_for_each_modality(results):
    table = without_modality_table(results)
    titles = ["all", "no audio", "no video", "no lyrics"]
    titles += [f"only {kind}" for kind in ("audio", "video", "lyrics")]
    assert [head.title for head in table.columns][1:-1] == titles
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    of_pair = rows["i3d+music1d"]
    # Without the sound the pair is the pictures alone; it never reads lyrics.
    assert of_pair[1] == of_pair[5]
    assert (of_pair[3], of_pair[6]) == ("", "")
    record = metrics_dict(results)["models"]["integrated"]["without_modality"]
    assert rows["integrated"][5] == f"{100 * record['audio+lyrics']:.1f}"


def test_a_model_for_new_clips_leaves_out_what_it_cannot_make(cache, results):
    with open_cache(cache) as opened:
        model = build_model(opened, results)
    assert {name for p in model.predictors for name in p.features} == {"music1d", "i3d"}
    assert model.best(("audio",)).features == ("music1d",)


@pytest.mark.parametrize("name", ["Lyrics", "song text", "none", "", "é", "a" * 21, "a+b"])
def test_a_name_that_is_no_short_word_is_refused(name):
    with pytest.raises(ValueError, match="expected audio, video or another short word"):
        check_modality(name)


def test_parts_of_four_modalities_are_all_that_leave_something():
    modality = {"a": "audio", "v": "video", "t": "lyrics", "e": "eeg"}
    models = models_of(modality)
    assert len(models) == 4 + 6 + 4 + 1 + 1
    parts = parts_of(models, modality)["integrated"]
    assert len(parts) == 2**4 - 2
    for missing, part in parts.items():
        assert set(part.modalities) == set(modality.values()) - set(missing)
        assert {modality[name] for name in part.features} == set(part.modalities)
    # A part and the fusion of the same features are one head.
    of_fusions = {m.features for m in models}
    named = parts_of(models, modality)["v+a+e+t"]
    assert {part.features for part in named.values()} <= of_fusions


def test_fusions_of_many_features_are_left_to_be_named():
    modality = {f"{kind}{i}": kind for kind in ("audio", "video", "lyrics") for i in range(3)}
    names = [m.name for m in models_of(modality)]
    assert "video0+audio0" in names
    assert "video0+audio0+lyrics0" not in names


def test_scores_with_modalities_missing_are_those_of_the_other_heads(results):
    found = by_name(results)
    triple = found["i3d+music1d+bert"].without_modality
    others = {
        "none": "i3d+music1d+bert",
        "audio": "i3d+bert",
        "video": "music1d+bert",
        "lyrics": "i3d+music1d",
        "audio+video": "bert",
        "audio+lyrics": "i3d",
        "video+lyrics": "music1d",
    }
    whole = np.setdiff1d(np.arange(48), [*NO_LYRICS, *SOUND_ALONE, *LYRICS_ALONE])
    for missing, other in others.items():
        right = found[other].y_pred[whole] == results.y_true[whole]
        by_hand = [right[results.folds[whole] == fold].mean() for fold in range(3)]
        assert triple[missing] == pytest.approx(np.mean(by_hand)), missing
    assert list(triple) == list(found[LATE].without_modality) == list(others)
    assert set(found["i3d+bert"].without_modality) == {"none", "video", "lyrics"}
