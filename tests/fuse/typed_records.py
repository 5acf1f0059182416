"""Comparison of JSON values with the `TypedDict` that a signature states for them."""

from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict


def misfits(value: Any, kind: Any, place: str = "") -> list[str]:
    """Return the places in JSON values that differ from a type: unknown and missing keys, too."""
    origin, args = get_origin(kind), get_args(kind)
    if is_typeddict(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        wrong = sorted((kind.__required_keys__ - {*value}) | ({*value} - {*hints}))
        found = [f"{place}.{name}" for name in wrong]
        for name in {*value} & {*hints}:
            found += misfits(value[name], hints[name], f"{place}.{name}")
        return found
    if origin is UnionType:
        return min((misfits(value, one, place) for one in args), key=len)
    if origin is list and isinstance(value, list):
        return [fault for one in value for fault in misfits(one, args[0], f"{place}[]")]
    if origin is dict and isinstance(value, dict):
        values = [fault for key in value for fault in misfits(value[key], args[1], f"{place}.*")]
        return values + [fault for key in value for fault in misfits(key, args[0], place)]
    allowed = {None: (NoneType,), float: (float, int)}.get(kind, (kind,))
    return [] if kind is Any or type(value) in allowed else [f"{place}: {value!r}"]
