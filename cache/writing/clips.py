"""Cache of clips without features."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from mvemo.cache.errors import CacheError
from mvemo.cache.storage.files import LIBVER
from mvemo.cache.table import ClipTable
from mvemo.cache.writing.checks import check_table
from mvemo.cache.writing.plan import Plan, write_plan
from mvemo.manifests.files import replacing, to_json_values


def write_clips(path: Path, table: ClipTable, provenance: Mapping[str, Any]) -> None:
    """Write a cache without features, which fixes all clips and their order for its shards.

    Nothing is locked: processes that write the same clips at the same time write equal files.

    Raises
    ------
    BadCache
        The table is inconsistent.
    CacheError
        The file cannot be written.
    """
    check_table(table, str(path))
    with (
        replacing(path, error=CacheError) as temp,
        h5py.File(temp, "w", libver=LIBVER, locking=False) as file,
    ):
        write_plan(file, Plan(table, [], {}, {}, {}, dict(to_json_values(provenance))))
