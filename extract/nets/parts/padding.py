"""TensorFlow's padding, for nets whose published weights were trained with it."""

from __future__ import annotations

from collections.abc import Sequence


def same_sides(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return TensorFlow's "SAME" padding before and after each axis.

    It gives ceil(size / stride) outputs; if the padding is odd, the larger part is after.

    Examples
    --------
    >>> same_sides((224, 7), kernel=(3, 3), stride=(2, 2))
    ((0, 1), (1, 1))
    """
    totals = [
        max((-(-size // s) - 1) * s + k - size, 0)
        for size, k, s in zip(sizes, kernel, stride, strict=True)
    ]
    return tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
