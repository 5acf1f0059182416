"""`mvemo audit` prints findings, and writes corrected copies that have none of them."""

import json

import numpy as np
import pytest

import mvemo
from mvemo.cache import CacheWriter, ClipTable, FeatureSpec, import_feature, open_cache


def table_of(n, run=2, ids="c{}", folds=None):
    """Return a table of `n` clips, whose label changes after each `run` clips."""
    return ClipTable(
        "made", "multiclass", ("calm", "tense"), tuple(ids.format(i) for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), np.arange(n) // run % 2,
        np.full(n, -1) if folds is None else folds, 0 if folds is None else 2,
    )  # fmt: skip


@pytest.fixture
def features(tmp_path):
    """Two features of 120 clips; in `timbre`, four clips are copies of clips of other groups."""
    rng, n = np.random.default_rng(0), 120
    table = table_of(n)
    values = rng.normal(size=(n, 24)).astype(np.float32)
    values[[60, 61, 90]] = values[[0, 0, 60]] = values[[0, 0, 0]]
    import_feature(tmp_path / "f.h5", "timbre", "audio", values, table=table)
    leak = np.eye(2)[table.labels] + rng.normal(scale=0.05, size=(n, 2))
    import_feature(tmp_path / "f.h5", "leak", "audio", leak.astype(np.float32))
    return tmp_path / "f.h5"


def kinds(program, *arguments):
    return [
        f["kind"]
        for f in json.loads(program("mvemo", "audit", *arguments, "--json").out)["findings"]
    ]


def test_findings_name_the_clips_and_the_cure(features, program):
    printed = program("mvemo", "audit", features, "--strict", ends=1).out
    assert "timbre: 4 of 120 clips have equal or nearly equal vectors" in printed
    assert "clips: c0, c60, c61, c90" in printed
    assert "cure: --exclude leak, unless you know how it was made" in printed
    found = kinds(program, features)
    assert found == ["duplicate-across-groups", "label-conflict", "label-leakage"]
    assert [f.kind for f in mvemo.audit(features)] == found
    assert "label-leakage" in mvemo.audit(features)._repr_html_()


@pytest.mark.parametrize(
    ("options", "n_clips", "n_groups"),
    [(["--drop-duplicates"], 117, 59), (["--merge-groups"], 120, 58)],
)
def test_corrected_copies_have_no_such_finding(
    features, program, tmp_path, options, n_clips, n_groups
):
    clean = tmp_path / "clean.h5"
    program("mvemo", "audit", features, *options, "--exclude", "leak", "--out", clean)
    assert kinds(program, clean) == []
    with open_cache(clean) as cache:
        assert cache.names() == ("timbre",)
        assert (len(cache.table), len(set(cache.table.groups))) == (n_clips, n_groups)
    assert program("mvemo", "audit", clean).out.endswith("no faults of the data were found\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--merge-groups"], "--merge-groups needs --out FILE"),
        (["--out", "x.h5"], "--out needs --drop-duplicates, --merge-groups or --exclude"),
        (
            ["--exclude", "x", "--out", "x.h5"],
            "--exclude x: unknown feature; expected one of leak, timbre",
        ),
    ],
)
def test_options_that_do_not_fit(features, program, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert message in program("mvemo", "audit", features, *options, ends=2).err


def test_groups_of_trained_nets_are_not_joined_across_their_folds(tmp_path, program):
    n = 40
    folds = np.arange(n) // 2 % 2
    table = table_of(n, 4, folds=folds)
    values = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
    values[2] = values[0]
    with CacheWriter(tmp_path / "f.h5", table) as writer:
        for fold in range(2):
            seen = tuple(c for c, f in zip(table.clip_ids, folds, strict=True) if f != fold)
            spec = FeatureSpec(
                "cnn", "audio", "vector", 8, "net:cnn", 1, {}, f"w{fold}", "crossfit", fold, seen
            )
            for clip, row in zip(table.clip_ids, values, strict=True):
                writer.put(spec, clip, spec.key(clip), row)
    words = ("audit", tmp_path / "f.h5", "--merge-groups", "--out", tmp_path / "c.h5")
    out = program("mvemo", *words, ends=2)
    assert "were trained for folds that divide the new groups" in out.err


def test_pieces_of_one_source_are_merged_but_not_dropped(program, tmp_path):
    n = 60
    ids = tuple(f"s{i // 3}-{i % 3 + 1}-of-3" for i in range(n))
    table = ClipTable(
        "made", "multiclass", ("calm", "tense"), ids,
        tuple(f"g{i}" for i in range(n)), np.arange(n) % 2, np.full(n, -1), 0,
    )  # fmt: skip
    values = np.random.default_rng(0).normal(size=(n, 24)).astype(np.float32)
    import_feature(tmp_path / "f.h5", "timbre", "audio", values, table=table)
    assert kinds(program, tmp_path / "f.h5") == ["source-across-groups"]
    words = ["--merge-groups", "--drop-duplicates", "--out", tmp_path / "g.h5"]
    program("mvemo", "audit", tmp_path / "f.h5", *words)
    with open_cache(tmp_path / "g.h5") as cache:
        assert (len(cache.table), len({*cache.table.groups})) == (n, n // 3)


def test_splits_of_the_manifest_are_compared(features, program, tmp_path):
    rows = [
        f"c{i},{i}.mp3,{('calm', 'tense')[i // 2 % 2]},{'test' if i == 60 else 'train'}"
        for i in range(120)
    ]
    (tmp_path / "clips.csv").write_text("\n".join(["clip_id,path,label,split", *rows]))
    assert "duplicate-across-splits" in kinds(
        program, features, "--manifest", tmp_path / "clips.csv"
    )
