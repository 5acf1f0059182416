"""Reader of arrays that other programs made: rows of numbers, and the clip ids of the rows.

The formats are ``.npy``, ``.npz``, HDF5, CSV and Parquet. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mvemo.cache.errors import BadCache, MissingCache
from mvemo.cache.imports.tables import ALL_COLUMNS, ArrayRows, TableColumns, read_numbers
from mvemo.cache.storage.plain import PlainDataSets
from mvemo.manifests.arrays import DAMAGED, NpzFile, read_npy
from mvemo.manifests.tables import TABLES

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
# Default names of the data set with the clip ids of an .npz or HDF5 file.
ID_NAMES = ("clip_id", "clip_ids")


def read_array(
    source: str | Path,
    *,
    dataset: str | None = None,
    id_column: str | None = None,
    guess: bool = True,
    columns: TableColumns = ALL_COLUMNS,
) -> ArrayRows:
    """Read rows of numbers.

    Parameters
    ----------
    source
        Path of an ``.npy``, ``.npz``, HDF5 (``.h5``, ``.hdf5``) or table file (CSV, Parquet).
        ``file.h5:name`` also names the data set. A table has a header, and a row of numbers
        per clip with empty cells for missing values; without an id column, it may consist of
        numbers only, without a header.
    dataset
        Data set of an ``.npz`` or HDF5 file. Default: ``values``, or the only numeric one.
    id_column
        Column of the table, or data set, that holds the clip ids. Default: ``clip_id`` (in
        ``.npz`` and HDF5 also ``clip_ids``) if it exists; in HDF5, the group of the numbers
        is searched first.
    guess
        If True, refuse a file with texts under another name that may be the clip ids;
        otherwise ignore such texts.
    columns
        Columns of a table. A column of text, or of whole numbers that are all different, is
        read as numbers only if it is requested by name.

    Returns
    -------
    The rows, with their clip ids if the file has any.

    Raises
    ------
    MissingCache
        The file does not exist.
    BadCache
        The file cannot be read, lacks the data set, or does not hold rows of numbers.

    See Also
    --------
    import_feature : Write the values into a cache.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "theirs.csv"
    >>> _ = path.write_text("clip_id,energy,tempo\\na,0.5,120\\nb,,90\\n")
    >>> array = read_array(path)
    >>> array.clip_ids, array.values.tolist()
    (('a', 'b'), [[0.5, 120.0], [nan, 90.0]])
    """
    path, named = split_source(source)
    dataset = named or dataset
    if not path.is_file():
        raise MissingCache(f"{path}: there is no such file")
    suffix = path.suffix.lower()
    if suffix in TABLES:
        if dataset is not None:
            raise BadCache(f"{path}: a table has no data sets, and so no {dataset!r}")
        return read_numbers(path, id_column, columns)
    try:
        if suffix == ".npy":
            if dataset is not None:
                raise BadCache(f"{path}: an .npy file has no data sets, and so no {dataset!r}")
            if id_column is not None:
                raise BadCache(f"{path}: an .npy file has no ids {id_column!r}: give --rows")
            return ArrayRows(path, None, _matrix(read_npy(path), str(path)), None)
        if suffix == ".npz":
            with NpzFile(path) as arrays:
                return _from_mapping(path, arrays, list(arrays), dataset, id_column, guess)
        if suffix in HDF5:
            with h5py.File(path, "r") as file:
                found = PlainDataSets(file, path.stat().st_size)
                return _from_mapping(path, found, list(found), dataset, id_column, guess)
    except BadCache:
        raise
    except (ValueError, *DAMAGED) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise BadCache(f"{path}: cannot be read as an array: {what}") from None
    known = ", ".join((".npy", ".npz", *HDF5, *TABLES))
    raise BadCache(f"{path}: ending {path.suffix!r} is none of {known}")


def split_source(source: str | Path) -> tuple[Path, str | None]:
    """Split ``file.h5:name`` into the file and the name of the data set, or None."""
    text = str(source)
    front, mark, name = text.rpartition(":")
    # A colon may also be part of the file's name or of a drive.
    if mark and name and Path(front).suffix.lower() in (*HDF5, ".npz") and not Path(text).exists():
        return Path(front), name
    return Path(text), None


def _from_mapping(
    path: Path,
    arrays: Mapping[str, Any],
    names: Sequence[str],
    dataset: str | None,
    ids: str | None,
    guess: bool,
) -> ArrayRows:
    """Read the rows of an ``.npz`` or HDF5 file, which map names to arrays."""
    listing = ", ".join(names) or "none"
    if dataset is None:
        id_names = (ids,) if ids else ID_NAMES
        numeric = [n for n in names if n not in id_names and arrays[n].dtype.kind in "fiub"]
        if "values" in numeric:
            dataset = "values"
        elif len(numeric) == 1:
            dataset = numeric[0]
        else:
            raise BadCache(f"{path}: name the data set that holds the numbers; there are {listing}")
    dataset = dataset.strip("/")
    if dataset not in names:
        raise BadCache(f"{path}: no data set {dataset!r}; there are {listing}")
    values = _matrix(np.asarray(arrays[dataset][()]), f"{path}:{dataset}")
    if ids is not None and ids not in names:
        raise BadCache(f"{path}: no data set {ids!r} of clip ids; there are {listing}")
    # Ids in the group of the numbers take precedence over ids of the whole file.
    group = dataset.rpartition("/")[0]
    likely = [f"{group}/{name}" for name in ID_NAMES if group] + list(ID_NAMES)
    id_name = ids or next((name for name in likely if name in names), None)
    if id_name is None:
        if guess:
            _refuse_unread_ids(path, arrays, names, dataset, len(values))
        return ArrayRows(path, dataset, values, None)
    listed = np.asarray(arrays[id_name][()])
    if listed.ndim != 1 or len(listed) != len(values):
        raise BadCache(
            f"{path}: ids {id_name!r} of shape {listed.shape} for {len(values)} rows of {dataset!r}"
        )
    texts = [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in listed.tolist()]
    return ArrayRows(path, dataset, values, tuple(texts))


def _refuse_unread_ids(
    path: Path, arrays: Mapping[str, Any], names: Sequence[str], dataset: str, rows: int
) -> None:
    """Refuse to rely on the order of rows if a data set of texts may be their clip ids."""
    group = dataset.rpartition("/")[0]
    for name in sorted(names, key=lambda n: n.rpartition("/")[0] != group):
        listed = arrays[name]
        if name == dataset or listed.shape != (rows,) or listed.dtype.kind not in "OSUT":
            continue
        # All texts differ, so they are names and not classes.
        if len(set(np.asarray(listed[()]).tolist())) == rows > 1:
            raise BadCache(
                f"{path}: data set {name!r} may be the clip ids of the rows: give --id-column "
                f"{name}, or --rows"
            )


def _matrix(array: NDArray[Any], where: str) -> NDArray[np.float64]:
    """Return an array of numbers as float64 (rows, dim); (rows,) becomes (rows, 1)."""
    if array.dtype.kind not in "fiub":
        raise BadCache(f"{where}: {array.dtype} was found, numbers are needed")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise BadCache(
            f"{where}: shape {array.shape}, needed is (rows, numbers): one vector a clip, as the "
            "mean over its frames"
        )
    return array.astype(np.float64)
