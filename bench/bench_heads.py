"""Stage two on a set of PL20's size: nine models, six folds, against a scikit-learn loop.

    python bench/bench_heads.py [--clips 3438] [--crossfit]

Made features with the dimensions of the papers' nets. Both sides read the same cache and
use the same folds; the other side is StandardScaler + LogisticRegression, a model and a
fold at a time, on features that weigh alike. What choosing the penalties costs is told in
processor time. The whole command ``mvemo-cv``, report included, is timed too.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import Row, bench_parser, finish
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from mvemo.cache import Cache, CacheWriter, ClipTable, FeatureSpec, open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, Results, evaluate
from mvemo.fuse.scaling import LIMIT
from mvemo.manifests import make_folds

DIMS = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}
CLASSES = ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
C = 0.01


def make_cache(path: Path, clips: int, crossfit: bool) -> None:
    """Rectified features of low rank with class means, as nets' embeddings are."""
    rng = np.random.default_rng(0)
    group = np.arange(clips) // 3
    labels = rng.integers(0, 6, group.max() + 1)[group]
    groups = tuple(f"g{g}" for g in group)
    folds = make_folds(labels, groups, 6, 0, "multiclass")
    ids = tuple(f"clip{i}" for i in range(clips))
    table = ClipTable(
        "made", "multiclass", CLASSES, ids, groups, labels, folds, 6, 0, "d" * 64, True
    )
    with CacheWriter(path, table) as writer:
        for name, dim in DIMS.items():
            hidden = rng.normal(size=(clips, 40)) + 0.35 * rng.normal(size=(6, 40))[labels]
            x = hidden @ rng.normal(size=(40, dim)) + rng.normal(size=(clips, dim))
            values = np.maximum(x, 0).astype(np.float32)
            for fold in range(6) if crossfit else (None,):
                seen = () if fold is None else tuple(np.array(ids)[folds != fold].tolist())
                spec = FeatureSpec(
                    name=name,
                    modality="audio" if name.startswith("music") else "video",
                    kind="vector",
                    dim=dim,
                    extractor=f"net:{name}",
                    version=1,
                    params={},
                    protocol="frozen" if fold is None else "crossfit",
                    fold=fold,
                    trained_on=seen,
                )
                for clip, row in zip(ids, values, strict=True):
                    writer.put(spec, clip, spec.key(clip), row)


def scikit_learn(cache: Cache, results: Results) -> dict[str, float]:
    """Mean accuracy of each model by a loop of LogisticRegression on the same folds.

    Features weigh alike, and values stop at the limit, as in ours.
    """
    accuracy = {}
    for model in results.models:
        right = []
        for fold in range(results.k):
            test = results.folds == fold
            blocks = []
            for name in model.features:
                x = cache.vectors(name, fold)[0]
                z = StandardScaler().fit(x[~test]).transform(x)
                mean_dim = np.mean([DIMS[feature] for feature in model.features])
                blocks.append(np.clip(z, -LIMIT, LIMIT) * np.sqrt(mean_dim / DIMS[name]))
            x = np.concatenate(blocks, axis=1)
            head = LogisticRegression(C=C, max_iter=1000).fit(x[~test], results.y_true[~test])
            right.append(np.mean(head.predict(x[test]) == results.y_true[test]))
        accuracy[model.name] = float(np.mean(right))
    return accuracy


def processor_time(cache: Cache, settings: EvaluationSettings) -> tuple[float, Results]:
    """Seconds of processor time of an evaluation, and its results."""
    started = time.process_time()
    results = evaluate(cache, settings)
    return time.process_time() - started, results


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--crossfit", action="store_true", help="features of six nets each")
    options = parser.parse_args()
    options.clips = options.clips or (300 if options.quick else 3438)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5"
        make_cache(path, options.clips, options.crossfit)
        with open_cache(path) as cache:
            plain = EvaluationSettings(
                head=HeadSettings(C=C, choose_C=False),
                stacked=False,
                late=False,
                choose_model=False,
                missing_modality=False,
                temperature=False,
                n_resamples=0,
            )
            evaluate(cache, replace(plain, models=("music2d",)))  # warm the file cache and BLAS
            started = time.perf_counter()
            fixed, results = processor_time(cache, plain)
            ours = time.perf_counter() - started
            chosen, _ = processor_time(cache, replace(plain, head=HeadSettings()))
            whole_fixed, _ = processor_time(
                cache, EvaluationSettings(head=HeadSettings(C=C, choose_C=False))
            )
            whole_chosen, _ = processor_time(cache, EvaluationSettings())
            started = time.perf_counter()
            theirs_accuracy = scikit_learn(cache, results)
            theirs = time.perf_counter() - started
        started = time.perf_counter()
        out = Path(folder) / "out"
        subprocess.run(
            [Path(sys.executable).with_name("mvemo-cv"), path, "--folds", "6", "--out", out],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        command = time.perf_counter() - started
    worst = max(
        abs(theirs_accuracy[m.name] - float(np.mean(m.per_fold["accuracy"])))
        for m in results.models
    )
    print(f"largest difference in a model's accuracy: {100 * worst:.2f} points")
    clips = f"{options.clips:,} clips{', crossfit' if options.crossfit else ''}"
    finish(
        options,
        [
            Row(f"nine models, six folds, {clips}", ours, "s", "loop over scikit-learn", theirs,
                theirs / ours, ">= 1"),
            Row("mvemo-cv with its report", command, "s"),
            Row("penalties chosen, processor", chosen, "s", "fixed ones", fixed, chosen / fixed),
            Row("the same with stack, product, choice", whole_chosen, "s", "fixed ones",
                whole_fixed, whole_chosen / whole_fixed),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
