"""HDF5 feature cache, the only data that travels from stage one to stage two."""

from mvemo.cache.difference import diff_caches
from mvemo.cache.errors import BadCache, CacheBusy, CacheError, DamagedCache, MissingCache
from mvemo.cache.export import export_cache
from mvemo.cache.failures import Failure, FailureKind, failures_by_reason
from mvemo.cache.import_arrays import ArrayRows, read_array, read_ids
from mvemo.cache.import_feature import Imported, ImportSettings, import_feature, join_arrays
from mvemo.cache.maintenance import (
    Removed,
    UnfinishedRun,
    merge_caches,
    remove_features,
    repair_cache,
    select_features,
    unfinished_run,
)
from mvemo.cache.reader import Cache, open_cache
from mvemo.cache.row_writer import PartWriter, RowWriter, StoredRows
from mvemo.cache.schema import SCHEMA
from mvemo.cache.spec import (
    MODALITIES,
    FeatureSpec,
    Kind,
    Protocol,
    check_modality,
    content_digest,
    digest_of,
    in_half_precision,
)
from mvemo.cache.table import TEST, TRAIN, VALIDATION, ClipTable
from mvemo.cache.verify import verify_cache, verify_untrusted
from mvemo.cache.writer import CacheWriter, write_clips

__all__ = [
    "MODALITIES",
    "SCHEMA",
    "TEST",
    "TRAIN",
    "VALIDATION",
    "ArrayRows",
    "BadCache",
    "Cache",
    "CacheBusy",
    "CacheError",
    "CacheWriter",
    "ClipTable",
    "DamagedCache",
    "Failure",
    "FailureKind",
    "FeatureSpec",
    "ImportSettings",
    "Imported",
    "Kind",
    "MissingCache",
    "PartWriter",
    "Protocol",
    "Removed",
    "RowWriter",
    "StoredRows",
    "UnfinishedRun",
    "check_modality",
    "content_digest",
    "diff_caches",
    "digest_of",
    "export_cache",
    "failures_by_reason",
    "import_feature",
    "in_half_precision",
    "join_arrays",
    "merge_caches",
    "open_cache",
    "read_array",
    "read_ids",
    "remove_features",
    "repair_cache",
    "select_features",
    "unfinished_run",
    "verify_cache",
    "verify_untrusted",
    "write_clips",
]
