"""Cross-validate features of your own: a row of numbers for each clip of a manifest.

python examples/cross_validate_features.py clips.csv features.npy report/
"""

import sys
from pathlib import Path

import numpy as np

import mvemo
from mvemo.cache import import_feature
from mvemo.fuse import write_report


def main(manifest: str, features: str, out: str) -> None:
    # Folds keep the clips of a group (a song, an artist) together.
    table = mvemo.clip_table(mvemo.load(manifest, media=False), 5)
    cache = Path(features).with_suffix(".h5")
    import_feature(cache, "mine", "audio", np.load(features), table=table)
    results = mvemo.evaluate(cache)
    for row in results.records():
        print(row)
    write_report(results, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
