"""Labels that know nothing of the clips, to check what score chance gives.

Blocks of clips keep together: the clips of a group, and groups with equal or nearly equal clips.
Each block gets the labels of a block that is drawn at random, with replacement. Without
replacement the classes that are rare in a test fold would be frequent in its training folds, so
that every score would lie below chance (for 96 clips of 6 classes .04 in place of .167).

Blocks make leaks visible: if pieces of one song are in several groups, a piece in training has the
label of its piece in the test fold, whatever that label is.
"""

from collections.abc import Iterable
from itertools import chain

import numpy as np

from mvemo.cache import ClipTable
from mvemo.fuse.audit import Finding, first_of_each
from mvemo.fuse.numeric import Labels, codes_of
from mvemo.manifests.array_types import F64, Ints


def label_blocks(table: ClipTable, findings: Iterable[Finding]) -> Ints:
    """Return the number of each clip's block, int64 (clips,), from the findings of an audit."""
    of_group = [
        (clip, f"group {group}") for clip, group in zip(table.clip_ids, table.groups, strict=True)
    ]
    alike = chain.from_iterable(f.pairs for f in findings if f.kind.endswith("-across-groups"))
    first = first_of_each([*of_group, *alike])
    return codes_of([first[clip] for clip in table.clip_ids])


def random_labels(y_true: Labels, blocks: Ints, seed: int) -> Labels:
    """Return labels of blocks drawn at random, shape of `y_true`; at least two labels occur."""
    rng = np.random.default_rng([seed, 1])
    members = np.split(np.argsort(blocks, kind="stable"), np.cumsum(np.bincount(blocks))[:-1])
    drawn = np.empty_like(y_true)
    while True:
        for rows in members:
            donor = rng.permutation(members[rng.integers(len(members))])
            drawn[rows] = y_true[np.resize(donor, len(rows))]
        if len(members) < 2 or (drawn != drawn[0]).any() or not (y_true != y_true[0]).any():
            return drawn


def chance_p(score: float, drawn: F64) -> float:
    """Return the share of scores, of these and of `drawn` labels, that are at least `score`."""
    return float((1 + np.sum(drawn >= score - 1e-12)) / (1 + len(drawn)))
