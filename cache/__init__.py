"""The HDF5 feature cache: all that travels between the two machines."""

from mvemo.cache.errors import BadCache, CacheBusy, CacheError, MissingCache
from mvemo.cache.export import export_cache
from mvemo.cache.imports.arrays import ArrayRows, read_array, read_ids
from mvemo.cache.imports.feature import Imported, ImportSettings, import_feature, join_arrays
from mvemo.cache.merge import merge_caches
from mvemo.cache.reader import Cache, Failure, open_cache
from mvemo.cache.repair import repair_cache
from mvemo.cache.spec import FeatureSpec, Kind, Modality, Protocol, content_digest, digest_of
from mvemo.cache.storage.opening import SCHEMA
from mvemo.cache.table import TEST, TRAIN, VALIDATION, ClipTable
from mvemo.cache.verify import verify_cache
from mvemo.cache.writer import CacheWriter

__all__ = [
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
    "Failure",
    "FeatureSpec",
    "ImportSettings",
    "Imported",
    "Kind",
    "MissingCache",
    "Modality",
    "Protocol",
    "content_digest",
    "digest_of",
    "export_cache",
    "import_feature",
    "join_arrays",
    "merge_caches",
    "open_cache",
    "read_array",
    "read_ids",
    "repair_cache",
    "verify_cache",
]
