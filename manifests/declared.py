"""Declaration of settings and of the keys of TOML files, as dataclasses."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Allowed:
    """Allowed values of a setting: a range of numbers, or a list of names."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    names: Sequence[str] = ()

    def __contains__(self, value: Any) -> bool:
        if self.names:
            return value in self.names
        return not isinstance(value, (int, float)) or (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        """Return the allowed values in words."""
        if self.names:
            return f"one of {', '.join(self.names)}"
        if self.ge is not None and self.le is not None:
            return f"from {self.ge:.12g} to {self.le:.12g}"
        if self.ge is not None and self.lt is not None:
            return f"at least {self.ge:g} and below {self.lt:g}"
        words = (
            (self.ge, "{:.12g} or more"),
            (self.gt, "above {:.12g}"),
            (self.le, "at most {:.12g}"),
            (self.lt, "below {:.12g}"),
        )
        return " and ".join(text.format(limit) for limit, text in words if limit is not None)


def setting(default: Any, meaning: str = "", *, profile: bool = True, **allowed: Any) -> Any:
    """Return a field of a dataclass of settings; `default` may be the class of nested settings.

    `meaning` is its text in docs/settings.md; `profile` is False if profiles must not set it.
    """
    metadata = {"meaning": meaning, "allowed": Allowed(**allowed), "profile": profile}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def profile_fields(settings: Any) -> Iterator[tuple[Field[Any], Any]]:
    """Yield field and value of each setting that a profile may set, nested settings included."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if is_dataclass(value):
            yield from profile_fields(value)
        elif each.metadata.get("profile", True) and each.name != "name":
            yield each, value


def check_settings(settings: Any, error: Callable[[str], Exception]) -> None:
    """Raise `error` for the first field whose value is not allowed."""
    for each in fields(settings):
        value, allowed = getattr(settings, each.name), each.metadata.get("allowed")
        if allowed is None or value in allowed:
            continue
        if allowed.names:
            raise error(f"{each.name}: expected {allowed}, got {value!r}")
        raise error(f"{each.name} is {value}: it must be {allowed}")


# --- TOML tables

_NOUNS = {str: "a string", int: "an integer", bool: "true or false", float: "a number"}


def from_table(kind: Any, stated: Any, place: str = "") -> Any:
    """Return a dataclass filled from a TOML table; raise ValueError for a wrong key or value.

    A single value stands for a tuple of it, and a text for a dataclass with this first field.
    Fields with the metadata ``key=False`` cannot be stated. `place` is the table's key.
    """
    if isinstance(stated, str):
        stated = {fields(kind)[0].name: stated}
    known = [each for each in fields(kind) if each.metadata.get("key", True)]
    hints, values = get_type_hints(kind), {}
    for key, value in _table(stated, place).items():
        here = f"{place}.{key}" if place else key
        if key not in [each.name for each in known]:
            listing = ", ".join(each.name for each in known)
            raise ValueError(f"unknown key {here}; expected one of {listing}")
        values[key] = _converted(hints[key], value, here)
    for each in known:
        if each.name not in values and each.default is each.default_factory is MISSING:
            raise ValueError(f"{place and place + ': '}the key {each.name} is missing")
    return kind(**values)


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place}: expected a table, got {value!r}")
    return value


def _converted(hint: Any, value: Any, place: str) -> Any:
    """Convert a TOML value to the type of a field."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        entries = value if isinstance(value, list) else [value]
        return tuple(_converted(args[0], v, f"{place}[{i}]") for i, v in enumerate(entries))
    if origin is Mapping:
        table = _table(value, place)
        return {key: _converted(args[1], v, f"{place}.{key}") for key, v in table.items()}
    kinds: tuple[Any, ...] = (str,) if origin is Literal else args or (hint,)
    if nested := [kind for kind in kinds if is_dataclass(kind)]:
        return from_table(nested[0], value, place)
    if hint is Any or type(value) in kinds or (type(value) is int and float in kinds):
        return value
    nouns = " or ".join(_NOUNS[kind] for kind in kinds if kind in _NOUNS)
    raise ValueError(f"{place}: expected {nouns}, got {value!r}")
