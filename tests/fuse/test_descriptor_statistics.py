"""Statistics of descriptors: their values, their record, and their way through stage two."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import features, make_table, spec

from mvemo.cache import Cache, CacheWriter, FeatureSpec, open_cache
from mvemo.fuse import EvaluationSettings, evaluate
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import descriptor_statistics, sequence_statistics, statistics_vectors

DIMS = {"mel": 3, "f0": 1}


def sequence_spec(name):
    return FeatureSpec(name, "audio", "sequence", DIMS[name], f"descriptor:{name}", 1, {})


@pytest.fixture(scope="module")
def table():
    return make_table(48, k=3, classes=("calm", "tense"))


@pytest.fixture(scope="module")
def cached(tmp_path_factory, table):
    """Sequences of different length whose deviation tells the classes; one clip has none."""
    path = tmp_path_factory.mktemp("lld") / "f.h5"
    rng = np.random.default_rng(0)
    with CacheWriter(path, table) as writer:
        vectors = features(table, "music1d", strength=0.1)
        for i, clip in enumerate(table.clip_ids):
            writer.put(spec("music1d", 12), clip, f"v{i}", vectors[i])
            if i == 0:
                continue
            n_frames = int(rng.integers(20, 60))
            for name in DIMS:
                values = rng.normal(size=(n_frames, DIMS[name])) * (1.0 + table.labels[i])
                writer.put(sequence_spec(name), clip, f"{name}{i}", values.astype(np.float32))
    return path


def test_statistics_are_those_of_numpy():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=(50, 4)).astype(np.float32)
    exact = values.astype(np.float64)
    expected = np.concatenate([exact.mean(0), exact.std(0), np.diff(exact, axis=0).std(0)])
    np.testing.assert_allclose(sequence_statistics(values), expected, rtol=1e-6)
    steps = np.diff(exact, axis=0)
    expected = [*np.quantile(exact, 0.9, axis=0), *steps.mean(0), *np.quantile(steps, 0.1, axis=0)]
    found = sequence_statistics(values, ("p90", "diff_mean", "diff_p10"))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # A single frame does not change.
    assert sequence_statistics(np.array([[2.0, 3.0]], "f4")).tolist() == [2.0, 3.0, 0, 0, 0, 0]


def test_vectors_are_in_the_descriptors_order_and_missing_where_a_sequence_is(cached, table):
    with open_cache(cached) as cache:
        made = descriptor_statistics(cache, ("mel", "f0"))
        values = statistics_vectors(cache, made)
        parts = [cache.sequence(name, table.clip_ids[5]) for name in ("mel", "f0")]
    assert values.shape == (48, made.dim) == (48, 12)
    assert (~np.isnan(values).any(axis=1)).tolist() == [False] + [True] * 47
    assert np.isnan(values[0]).all()
    expected = np.concatenate([sequence_statistics(part) for part in parts])
    np.testing.assert_array_equal(values[5], expected)


def test_sequences_are_read_once_for_folds_repeats_and_audit(cached, monkeypatch):
    read = []
    sequence = Cache.sequence
    monkeypatch.setattr(Cache, "sequence", lambda *args: read.append(args[1:]) or sequence(*args))
    settings = EvaluationSettings(lld=tuple(DIMS), folds=4, repeats=2, n_resamples=0)
    with open_cache(cached) as cache:
        evaluate(cache, settings)
    assert len(read) == len(set(read)) == 48 * len(DIMS)


def test_the_record_changes_with_what_the_values_are_made_from(cached):
    with open_cache(cached) as cache:
        both, again, other = (
            descriptor_statistics(cache, names)
            for names in (("mel", "f0"), ("mel", "f0"), ("f0", "mel"))
        )
        assert both.params["descriptors"]["mel"] == cache.spec("mel").digest
    assert both.digest == again.digest != other.digest
    found = (both.name, both.modality, both.kind, both.protocol)
    assert found == ("lld", "audio", "vector", "none")


def test_it_is_evaluated_like_a_feature_of_the_cache(cached):
    settings = EvaluationSettings(lld=("mel", "f0"), n_resamples=20, learning_curve=True)
    with open_cache(cached) as cache:
        results = evaluate(cache, settings)
        before = cache.digest()
        permuted = evaluate(cache, replace(settings, permute_labels=True, learning_curve=False))
        assert cache.digest() == before
    scores = {m.name: m.scores["accuracy"] for m in results.models}
    assert scores["lld"] > 0.8 > scores["music1d"]
    assert {m.name: m.scores["accuracy"] for m in permuted.models}["lld"] < 0.75
    assert "lld" in results.learning_curve
    (record,) = results.provenance["features"]["lld"]
    assert (record["extractor"], record["dim"]) == ("statistics of descriptors v1", 12)
    assert results.provenance["settings"]["lld"] == ("mel", "f0")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("mfcc",), "fuse.lld: unknown sequence 'mfcc'; the file has f0, mel"),
        (("music1d",), "unknown sequence 'music1d'"),
        (("mel", "mel"), "names 'mel' twice"),
    ],
)
def test_what_it_cannot_be_made_from_is_one_line(cached, names, message):
    with open_cache(cached) as cache, pytest.raises(BadFeatures, match=message):
        evaluate(cache, EvaluationSettings(lld=names))


def test_a_feature_of_that_name_is_not_hidden(tmp_path, table):
    with CacheWriter(tmp_path / "f.h5", table) as writer:
        values = np.zeros((5, DIMS["mel"]), dtype=np.float32)
        writer.put(sequence_spec("mel"), table.clip_ids[0], "k", values)
        own = replace(spec("music1d", 12), name="lld")
        writer.put(own, table.clip_ids[0], "k", np.zeros(12, dtype=np.float32))
    message = "already has a feature 'lld'"
    with open_cache(tmp_path / "f.h5") as cache, pytest.raises(BadFeatures, match=message):
        descriptor_statistics(cache, ("mel",))
