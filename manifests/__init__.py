"""Manifests (labelled clips with groups and folds), and the demo data set."""

from mvemo.manifests.errors import BadManifest, ManifestError, MissingManifest, Problem
from mvemo.manifests.labels import TASKS, Task
from mvemo.manifests.layouts.file_names import infer_group, source_of, with_inferred_groups
from mvemo.manifests.layouts.scan import LAYOUTS, Scan, Selection, scan_clips
from mvemo.manifests.model import Clip, Manifest
from mvemo.manifests.reader import check_manifest, read_manifest
from mvemo.manifests.schemes import SCHEMES, Scheme, apply_scheme, find_scheme
from mvemo.manifests.segments import segment_manifest, song_of
from mvemo.manifests.splits.fold_file import Folds, folds_of, read_folds, write_folds
from mvemo.manifests.splits.folds import fold_notes, holdout_split, inner_split, make_folds
from mvemo.manifests.splits.holdout import Holdout, holdout_of, parse_fractions, prescribed_split
from mvemo.manifests.writer import write_manifest

__all__ = [
    "LAYOUTS",
    "SCHEMES",
    "TASKS",
    "BadManifest",
    "Clip",
    "Folds",
    "Holdout",
    "Manifest",
    "ManifestError",
    "MissingManifest",
    "Problem",
    "Scan",
    "Scheme",
    "Selection",
    "Task",
    "apply_scheme",
    "check_manifest",
    "find_scheme",
    "fold_notes",
    "folds_of",
    "holdout_of",
    "holdout_split",
    "infer_group",
    "inner_split",
    "make_folds",
    "parse_fractions",
    "prescribed_split",
    "read_folds",
    "read_manifest",
    "scan_clips",
    "segment_manifest",
    "song_of",
    "source_of",
    "with_inferred_groups",
    "write_folds",
    "write_manifest",
]
