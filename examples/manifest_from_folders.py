"""Make a manifest of a folder that has a folder of clips for each class.

python examples/manifest_from_folders.py VIDEOS clips.csv
"""

import sys
from collections import Counter

import mvemo
from mvemo.manifests import folds_of, write_manifest


def main(folder: str, out: str) -> None:
    # Pieces that are named X-1-of-9 and X-2-of-9 are one group, which no fold divides.
    manifest = mvemo.load(folder, infer_groups=True)
    write_manifest(manifest, out)
    print(Counter(clip.label[0] for clip in manifest.clips))
    folds = folds_of(manifest, 3)
    for fold in range(folds.k):
        print(f"fold {fold}: {folds.test(fold).sum()} clips are tested")


if __name__ == "__main__":
    main(*sys.argv[1:])
