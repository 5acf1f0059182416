"""Steps without media: data that are scanned and imported, and faults that are found in data."""

from __future__ import annotations

import csv

import numpy as np
from golden_steps import CLASSES, Recorder, write_csv
from numpy.typing import NDArray

PARTS = tuple(f"song{song}-{part}-of-2.mp3" for song in (1, 2) for part in (1, 2))
LAYOUT = """name = "verses"
title = "Verses"
task = "regression"
scale = "1..9"
[[table]]
path = ["ratings.csv"]
id = "number"
[targets]
valence = { column = "v", deviation = "sd" }
arousal = "a"
[media]
path = ["audio/{number:3}.wav"]
[group]
column = "singer"
[split]
train = "train.txt"
test = "test.txt"
"""


def record_tables(recorder: Recorder) -> None:
    """Keep the manifests that are scanned and imported, and the features that are imported."""
    _scan_folders(recorder)
    _import_tables(recorder)
    _import_arrays(recorder)


def _scan_folders(recorder: Recorder) -> None:
    for folder in ("videos/Sad", "videos/Relaxation", "verses"):
        (recorder.work / folder).mkdir(parents=True)
    for name in PARTS:
        for mood in ("Sad", "Relaxation"):
            (recorder.work / "videos" / mood / f"{mood} {name}").touch()
    ratings = [(i, 1 + i, 9 - i, i / 4, f"singer {i % 3}") for i in range(1, 7)]
    write_csv(recorder.work / "verses/ratings.csv", ("number", "v", "a", "sd", "singer"), ratings)
    (recorder.work / "verses/train.txt").write_text("1\n2\n4\n5\n")
    (recorder.work / "verses/test.txt").write_text("3\n6\n")
    (recorder.work / "verses.toml").write_text(LAYOUT)
    (recorder.work / "videos/Sad/notes.txt").touch()
    for name, *options in (
        ("scan", "videos", "--infer-groups", "--scheme", "pl20"),
        ("scan-unlabelled", "videos/Sad", "--no-labels", "--group-pattern", "(.+)-[12]-of"),
        ("scan-layout", "verses", "--layout", "verses.toml", "--no-media"),
    ):
        out = ("--out", f"{name}.csv")
        recorder.run(f"tables/{name}", "manifest", "scan", *options, *out)
        recorder.keep_file(f"tables/{name}.csv", f"{name}.csv")


def _import_tables(recorder: Recorder) -> None:
    n = 12
    songs = [f"mp3/song {i}.mp3" for i in range(n)]
    artists = [f"artist {i % 5}" for i in range(n)]
    splits = [("train", "validation", "test")[i % 3] for i in range(n)]
    moods = [CLASSES[i % 4].title() for i in range(n)]
    rows = list(zip(songs, artists, splits, moods, strict=True))
    write_csv(recorder.work / "moods.csv", ("file", "artist", "split", "mood"), rows)
    tags = ["; ".join(CLASSES[: i % 3]) for i in range(n)]
    write_csv(recorder.work / "tags.csv", ("filename", "tags"), list(zip(songs, tags, strict=True)))
    ratings = [(song, 1 + i % 9, 9 - i / 2) for i, song in enumerate(songs)]
    ratings[3] = (songs[3], "", "")
    write_csv(recorder.work / "ratings.csv", ("path", "Valence", "Arousal"), ratings)
    for name, *options in (
        ("moods", "--column", "group=artist", "--scheme", "quadrants", "--drop-unmapped"),
        ("tags", "--separator", ";"),
        ("ratings", "--scale", "1..9", "--skip-unlabelled"),
    ):
        out = ("--out", f"made-{name}.csv", "--no-media")
        recorder.run(f"tables/{name}", "manifest", "import", f"{name}.csv", *options, *out)
        recorder.keep_file(f"tables/{name}.csv", f"made-{name}.csv")
    options = ("--folds", "3", "--out", "folds.csv")
    recorder.run("tables/folds", "manifest", "folds", "scan.csv", *options)
    recorder.keep_file("tables/folds.csv", "folds.csv")


def _import_arrays(recorder: Recorder) -> None:
    rng, n = np.random.default_rng(4), 12
    ids = [f"mp3/song {i}.mp3" for i in range(n)]
    values = rng.normal(size=(n, 4)).astype(np.float32)
    np.savez(recorder.work / "named.npz", clip_id=ids[::-1], values=values[:, :3], rows=values)
    rows = [(name, *row) for name, row in zip(ids, values.tolist(), strict=True)]
    rows[2] = (ids[2], "", "", "", "")
    rows.append(("mp3/unknown.mp3", 1, 2, 3, 4))
    write_csv(recorder.work / "table.csv", ("file", "f1", "f2", "f3", "tempo"), rows)
    np.save(recorder.work / "ordered.npy", values)
    manifest = ("--manifest", "made-tags.csv")
    table = ("--columns", "f*", "--skip-columns", "f2", "--id-column", "file", "--skip-unknown")
    for name, *options in (
        ("ordered", "ordered.npy", "--modality", "audio", *manifest),
        ("named", "named.npz:values", "--modality", "lyrics"),
        ("columns", "table.csv", "--modality", "video", *table),
    ):
        recorder.run(f"tables/{name}", "cache", "import", "songs.h5", *options, "--feature", name)
    recorder.run("tables/info", "cache", "info", "songs.h5")
    recorder.run("", "cache", "export", "songs.h5", "--feature", "columns", "--out", "columns.csv")
    recorder.keep_file("tables/columns.csv", "columns.csv")


def record_judged(recorder: Recorder) -> None:
    """Keep what is found in features: faults, wrong labels, clips to label, loss in transfer."""
    _write_features(recorder, "moods", seed=0)
    _write_features(recorder, "others", seed=1)
    _write_features(recorder, "ratings", seed=2)
    recorder.run_json("judged/audit", "audit", "moods.h5", "--json")
    options = ("--merge-groups", "--drop-duplicates", "--out", "clean.h5")
    recorder.run("judged/clean", "audit", "moods.h5", *options)
    recorder.run("judged/clean-info", "cache", "info", "clean.h5")
    recorder.run("judged/labels", "labels", "moods.h5", "--out", "labels.csv")
    recorder.keep_file("judged/labels.csv", "labels.csv")
    recorder.run_json("judged/labels-ratings", "labels", "ratings.h5", "--json", "--most", "9")
    options = ("--next", "others.h5", "--most", "6", "--out", "next.csv")
    recorder.run("judged/next", "labels", "moods.h5", *options)
    recorder.keep_file("judged/next.csv", "next.csv")
    recorder.run("judged/transfer", "study", "transfer", "moods.h5", "others.h5")
    options = ("--scheme", "quadrants", "--json")
    recorder.run_json("judged/quadrants", "study", "transfer", "ratings.h5", "others.h5", *options)
    _relabel(recorder)


def _relabel(recorder: Recorder) -> None:
    """Correct the two most doubtful labels, and keep the manifest."""
    with (recorder.work / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["clip_id"], "Q2" if i < 2 else "") for i, row in enumerate(rows)]
    write_csv(recorder.work / "corrected.csv", ("clip_id", "corrected"), found)
    options = ("moods.csv", "corrected.csv", "--out", "relabelled.csv")
    recorder.run("judged/relabel", "manifest", "relabel", *options)
    recorder.keep_file("judged/relabelled.csv", "relabelled.csv")


def _write_features(recorder: Recorder, name: str, seed: int, n: int = 80) -> None:
    """Write a manifest and features of clips in pairs, with faults in the first set."""
    rng = np.random.default_rng(seed)
    plane = np.repeat(rng.uniform(-1, 1, size=(n // 2, 2)), 2, axis=0)
    values = plane @ np.random.default_rng(9).normal(size=(2, 12)) + rng.normal(size=(n, 12))
    quadrants = 2 * (plane[:, 0] > 0) + (plane[:, 1] > 0)
    # Q3, Q2, Q4 and Q1 of the plane of valence and arousal.
    labels = [("Q3", "Q2", "Q4", "Q1")[q] for q in quadrants]
    if name == "moods":
        values[31] = values[4]  # equal clips in two groups
        values[50] = 40.0  # a clip that is far from all others
        values[:, 11] = 1.0  # a constant column
        labels[10], labels[21] = "Q1", "Q3"
    columns: dict[str, list[object] | NDArray[np.float64]] = {"label": list(labels)}
    if name == "ratings":
        columns = {"valence": plane[:, 0].round(3), "arousal": plane[:, 1].round(3)}
    ids = [f"{name} {i}" for i in range(n)]
    groups = [f"{name} song {i // 2}" for i in range(n)]
    rows = list(zip(ids, [f"{i}.wav" for i in ids], groups, *columns.values(), strict=True))
    write_csv(recorder.work / f"{name}-table.csv", ("clip_id", "path", "group", *columns), rows)
    np.save(recorder.work / f"{name}.npy", values.astype(np.float32))
    out = ("--no-media", "--out", f"{name}.csv")
    scale = ("--scale", "-1..1") if name == "ratings" else ()
    recorder.run("", "manifest", "import", f"{name}-table.csv", *scale, *out)
    options = ("--manifest", f"{name}.csv", "--feature", "sound", "--modality", "audio")
    recorder.run("", "cache", "import", f"{name}.h5", f"{name}.npy", *options)
