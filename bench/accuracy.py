"""Accuracy over processor time of one net, for a number of frames or windows of a clip.

Each setting embeds all clips of a manifest with public weights, by one worker. The accuracy is that
of a head on this net's features alone: the mean over seeds of six folds, with its deviation over
the seeds.

    python bench/accuracy.py clips.csv effnet options.n_frames 2,4,8,16,32 --out effnet.svg
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from figures import processor_seconds

from mvemo.cache import open_cache
from mvemo.fuse import evaluate
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings


def seconds_and_accuracy(
    manifest: Path, net: str, setting: str, work: Path, seeds: int
) -> tuple[float, list[float]]:
    """Return the processor seconds of a clip, and the accuracy for each seed of the folds."""
    features = work / "features.h5"
    command = [sys.executable, "-m", "mvemo.pipeline", "extract", str(manifest)]
    command += ["--profile", "pretrained", "--nets", net, "--set", f"nets.{net}.{setting}"]
    command += ["--set", "extract.descriptors=['mfcc']", "--workers", "1", "-q"]
    started = processor_seconds()
    subprocess.run([*command, "--out", str(features), "--work", str(work)], check=True)
    spent = processor_seconds() - started
    scores = []
    with open_cache(features) as cache:
        for seed in range(seeds):
            settings = EvaluationSettings(models=(net,), folds=6, seed=seed + 1, n_resamples=0)
            results = evaluate(cache, settings)
            scores.append(results.primary_mean(results.models[0]))
        return spent / len(cache.table), scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("net")
    parser.add_argument("key", help="such as options.n_frames or views")
    parser.add_argument("values", help="comma-separated")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("accuracy.svg"))
    chosen = parser.parse_args()
    points = []
    for value in chosen.values.split(","):
        with tempfile.TemporaryDirectory() as work:
            setting = f"{chosen.key}={value}"
            seconds, scores = seconds_and_accuracy(
                chosen.manifest, chosen.net, setting, Path(work), chosen.seeds
            )
        points.append((seconds, np.mean(scores), np.std(scores)))
        mean, deviation = points[-1][1:]
        print(f"{setting}: {seconds:.2f} s a clip, {mean:.3f} ± {deviation:.3f}", flush=True)
    x, y, spread = np.array(points).T
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.errorbar(x, y, spread, marker="o", capsize=3)
    for place, value in zip(zip(x, y, strict=True), chosen.values.split(","), strict=True):
        axes.annotate(value, place, xytext=(4, 5), textcoords="offset points")
    axes.set(xlabel="processor seconds of a clip", ylabel="accuracy", title=chosen.key)
    figure.savefig(chosen.out)
    print(f"figure: {chosen.out}")


if __name__ == "__main__":
    main()
