"""Failures, curves, provenance and merged shards in a cache file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any

import numpy as np

from mvemo.cache.storage.encoding import curves_from_json, text_checksum, to_json
from mvemo.cache.storage.layout import MISFIT, read_strings, read_text, write_strings, write_text
from mvemo.cache.storage.plain import (
    array_of,
    attribute,
    has_attribute,
    part,
    write_attribute,
)
from mvemo.cache.types import Curves, Failures, Reason
from mvemo.manifests.files import parse_json


def write_extras(
    file: Any,
    failures: Failures,
    curves: Mapping[str, Any],
    provenance: Mapping[str, Any],
    merged: Sequence[str] = (),
) -> None:
    """Write failures, curves, provenance, and the names of merged shards."""
    write_strings(file, "merged", merged)
    group = file.create_group("failures")
    items = sorted(failures.items(), key=lambda item: item[0])
    columns = {
        "clips": [clip for (clip, _), _ in items],
        "stages": [stage for (_, stage), _ in items],
        "reasons": [reason.text if reason else "" for _, reason in items],
        "times": [reason.time if reason else "" for _, reason in items],
        "versions": [reason.version if reason else "" for _, reason in items],
    }
    for name, values in columns.items():
        write_strings(group, name, values)
    cleared = np.array([reason is None for _, reason in items], dtype=np.bool_)
    group.create_dataset("cleared", data=cleared)
    write_attribute(group, "checksum", failures_checksum(failures))
    origins = _origins_checksum(columns["times"], columns["versions"])
    write_attribute(group, "origin_checksum", origins)
    write_text(file, "curves", to_json(curves))
    write_text(file, "provenance", to_json(provenance))


def failures_checksum(failures: Failures) -> str:
    """Return the checksum of failures, independent of their order."""
    return text_checksum(
        to_json(
            sorted(
                [*clip_stage, why is None, None if why is None else why.text]
                for clip_stage, why in failures.items()
            )
        )
    )


def _origins_checksum(times: Sequence[str], versions: Sequence[str]) -> str:
    return text_checksum("\0".join(times), "\0".join(versions))


def read_failures(file: Any) -> Failures:
    """Read ``/failures``; raise ValueError if they do not match their checksum."""
    group = part(file, "failures")
    clips = read_strings(group, "clips")
    times = versions = ("",) * len(clips)
    if has_attribute(group, "origin_checksum"):
        times, versions = read_strings(group, "times"), read_strings(group, "versions")
        if _origins_checksum(times, versions) != attribute(group, "origin_checksum", str):
            raise ValueError(MISFIT)
    rows = zip(
        clips,
        read_strings(group, "stages"),
        starmap(Reason, zip(read_strings(group, "reasons"), times, versions, strict=True)),
        array_of(group, "cleared", np.bool_, (len(clips),)).read().tolist(),
        strict=True,
    )
    failures: Failures = {
        (clip, stage): None if is_cleared else reason for clip, stage, reason, is_cleared in rows
    }
    if failures_checksum(failures) != attribute(group, "checksum", str):
        raise ValueError(MISFIT)
    return failures


def read_curves(file: Any) -> Curves:
    """Read ``/curves``; raise ValueError if they are not named series of numbers."""
    stored = parse_json(read_text(file, "curves"))
    for series in _values_of(stored, "curves"):
        for values in _values_of(series, "a curve"):
            if not isinstance(values, list) or not all(
                v is None or (isinstance(v, (int, float)) and not isinstance(v, bool))
                for v in values
            ):
                raise ValueError("a curve has values that are no numbers")
    return curves_from_json(stored)


def read_provenance(file: Any) -> dict[str, Any]:
    """Read ``/provenance``; raise ValueError unless it and its history are records."""
    stored = parse_json(read_text(file, "provenance"))
    _values_of(stored, "provenance")
    history = stored.get("history", [])
    if not isinstance(history, list) or not all(isinstance(item, dict) for item in history):
        raise ValueError("its history is no list of records")
    return dict(stored)


def read_merged(file: Any) -> tuple[str, ...]:
    """Read the names of the shards that were merged into the file."""
    return read_strings(file, "merged")


def _values_of(value: Any, what: str) -> list[Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a {type(value).__name__}, needed is a record")
    return list(value.values())
