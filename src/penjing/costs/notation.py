"""A layer's shape as one line of text, for files that people read."""

from __future__ import annotations

import re

from penjing.costs.probe import Shape

_SIDES = r"\d+(?:x\d+)*"
_TEXT = re.compile(
    r"(?P<read>\d+)>(?P<made>\d+)(?: g(?P<groups>\d+))?(?: k(?P<kernel>S) s(?P<stride>S)(?: d(?P<dilation>S))?"
    r"(?P<transposed> transposed)?)?(?P<picks> pick)?(?: (?P<size>S)>(?P<out>S))?".replace("S", _SIDES)
)


def written(shape: Shape) -> str:
    """Return a shape as text: channels, groups, kernel, stride, dilation, sizes; what is 1 everywhere is left out.

    >>> written(Shape(64, 128, 1, (3, 3), (2, 2), (1, 1), False, (8, 8), (4, 4)))
    '64>128 k3x3 s2x2 8x8>4x4'
    >>> written(Shape(512, 10))
    '512>10'
    >>> written(Shape(64, 128, in_size=(8, 8), out_size=(8, 8), picks=True))
    '64>128 pick 8x8>8x8'
    """
    parts = [f"{shape.in_channels}>{shape.out_channels}"]
    parts += [f"g{shape.groups}"] if shape.groups != 1 else []
    if shape.kernel:
        parts += [f"k{_sides(shape.kernel)}", f"s{_sides(shape.stride)}"]
        parts += [f"d{_sides(shape.dilation)}"] if set(shape.dilation) != {1} else []
        parts += ["transposed"] if shape.transposed else []
    parts += ["pick"] if shape.picks else []
    parts += [f"{_sides(shape.in_size)}>{_sides(shape.out_size)}"] if shape.in_size else []
    return " ".join(parts)


def read_shape(text: str) -> Shape:
    """Return the shape that a text tells of.

    Raises: ValueError for another text.

    >>> read_shape("8>8 g8 k3 s1 d2 20>18").dilation
    (2,)
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:60]!r} is no layer, such as '64>128 k3x3 s2x2 8x8>4x4'")
    kernel = _numbers(found["kernel"])
    dilation = _numbers(found["dilation"]) or (1,) * len(kernel)
    return Shape(
        int(found["read"]), int(found["made"]), int(found["groups"] or 1), kernel, _numbers(found["stride"]), dilation,
        bool(found["transposed"]), _numbers(found["size"]), _numbers(found["out"]), bool(found["picks"]),
    )  # fmt: skip


def _sides(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(map(int, text.split("x"))) if text else ()
