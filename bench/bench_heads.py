"""Stage two on a set of PL20's size: nine models, six folds, against a scikit-learn loop.

    python bench/bench_heads.py [--clips 3438] [--crossfit]

Made features with the dimensions of the papers' nets, of low rank as embeddings are, and
independent ones, on which scikit-learn's solvers need fewer steps. Both sides read the same cache
and use the same folds and one thread; the other side is StandardScaler + LogisticRegression, a
model and a fold at a time, on features that weigh alike, with the solver that was the fastest on
the model's first fold. Times are processor times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import Row, bench_parser, finish, in_turns
from plain import CLASSES, PLAIN, C
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mvemo.cache import Cache, CacheWriter, ClipTable, FeatureSpec, open_cache
from mvemo.fuse import EvaluationSettings, HeadSettings, Results, evaluate
from mvemo.fuse.scaling import LIMIT
from mvemo.manifests import make_folds

DIMS = {"music1d": 256, "music2d": 160, "c3d": 512, "i3d": 1024}


def make_cache(path: Path, clips: int, *, crossfit: bool, low_rank: bool) -> None:
    """Write rectified features with class means: of low rank, or independent of each other."""
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
            means = hidden @ rng.normal(size=(40, dim))
            if not low_rank:
                means = 0.1 * rng.normal(size=(6, dim))[labels]
            x = means + rng.normal(size=(clips, dim))
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


def fastest(x: np.ndarray, y: np.ndarray) -> tuple[str, Any]:
    """Return scikit-learn's fastest solver that converges, in its second fit, and its head."""
    options: dict[str, Any] = {"C": C, "max_iter": 1000}
    names = ["lbfgs", "newton-cg"]
    # Its matrix of second derivatives has a row for each class and number.
    names += ["newton-cholesky"] if len(CLASSES) * x.shape[1] < 3000 else []
    heads: dict[str, Any] = {name: LogisticRegression(**options, solver=name) for name in names}
    # On wide features it takes forty times as long as the others.
    heads |= {"saga": LogisticRegression(C=C, solver="saga")} if x.size < 200_000 else {}
    of_class = LogisticRegression(**options, solver="liblinear", dual=x.shape[1] > len(x))
    heads["liblinear, one class against the rest"] = OneVsRestClassifier(of_class)
    spent = {}
    for name, head in heads.items():
        with warnings.catch_warnings(), suppress(ConvergenceWarning):
            warnings.simplefilter("error", ConvergenceWarning)
            head.fit(x, y)
            spent[name] = in_turns([partial(head.fit, x, y)], 1)[0][1]
    best = min(spent, key=spent.__getitem__)
    return best, heads[best]


def scikit_learn(cache: Cache, results: Results) -> tuple[dict[str, float], Counter[str], float]:
    """Return the accuracy of each model by a loop on the same folds, the solvers and the seconds.

    Features weigh alike, and values stop at the limit, as in ours. The choice of a solver, on the
    model's first fold, is not counted.
    """
    accuracy, chosen, spent = {}, Counter[str](), 0.0
    for model in results.models:
        right, head = [], None
        mean_dim = np.mean([DIMS[feature] for feature in model.features])
        for fold in range(results.k):
            started = time.process_time()
            test, blocks = results.folds == fold, []
            for name in model.features:
                x = cache.vectors(name, fold)[0]
                z = StandardScaler().fit(x[~test]).transform(x)
                blocks.append(np.clip(z, -LIMIT, LIMIT) * np.sqrt(mean_dim / DIMS[name]))
            x, y = np.concatenate(blocks, axis=1), results.y_true
            spent += time.process_time() - started
            if head is None:
                solver, head = fastest(x[~test], y[~test])
                chosen[solver] += 1
            started = time.process_time()
            right.append(np.mean(head.fit(x[~test], y[~test]).predict(x[test]) == y[test]))
            spent += time.process_time() - started
        accuracy[model.name] = float(np.mean(right))
    return accuracy, chosen, spent


def processor_time(cache: Cache, settings: EvaluationSettings) -> float:
    """Return the seconds of processor time of an evaluation, the least of two."""
    return in_turns([partial(evaluate, cache, settings)], 2)[0][1]


def against_scikit_learn(path: Path, what: str) -> tuple[float, Row]:
    """Return our seconds at a fixed penalty, and the row that compares them."""
    with open_cache(path) as cache:
        results, ours = evaluate(cache, PLAIN), processor_time(cache, PLAIN)
        accuracy, chosen, theirs = scikit_learn(cache, results)
    worst = max(abs(accuracy[m.name] - np.mean(m.per_fold["accuracy"])) for m in results.models)
    print(f"{what}: largest difference in a model's accuracy: {100 * worst:.2f} points")
    names = ", ".join(f"{name} {count}" for name, count in chosen.most_common())
    return ours, Row(what, ours, "s", f"scikit-learn ({names})", theirs, theirs / ours, ">= 1")


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--clips", type=int)
    parser.add_argument("--crossfit", action="store_true", help="features of six nets each")
    options = parser.parse_args()
    options.clips = options.clips or (300 if options.quick else 3438)
    clips = f"{options.clips:,} clips{', crossfit' if options.crossfit else ''}"
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        path, out = Path(folder) / "features.h5", Path(folder) / "out"
        rows = []
        for kind in ("independent", "low rank"):
            make_cache(path, options.clips, crossfit=options.crossfit, low_rank=kind == "low rank")
            fixed, row = against_scikit_learn(path, f"nine models, six folds, {clips}, {kind}")
            rows.append(row)
        with open_cache(path) as cache:
            chosen = processor_time(cache, replace(PLAIN, head=HeadSettings()))
            whole_fixed = processor_time(cache, EvaluationSettings(head=PLAIN.head))
            whole_chosen = processor_time(cache, EvaluationSettings())
        command = [Path(sys.executable).with_name("mvemo-cv"), path, "--folds", "6", "--out", out]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = partial(
            subprocess.run, command, check=True, env=environment, stdout=subprocess.DEVNULL
        )
        ((_, spent),) = in_turns([run], 1)
    finish(
        options,
        [
            *rows,
            Row("mvemo-cv with its report, processor", spent, "s"),
            Row("penalties chosen, processor", chosen, "s", "fixed ones", fixed, chosen / fixed),
            Row("the same with stack, product, choice", whole_chosen, "s", "fixed ones",
                whole_fixed, whole_chosen / whole_fixed),
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
