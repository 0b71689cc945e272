import warnings
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import RecipeError
from penjing.core.spec import LONGEST, Spec

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a'\"(,=\\\n", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["width", "num_classes"]), plain))
def test_what_is_written_is_read_again(arguments):
    spec = Spec("my.module:net", arguments)
    assert Spec.read(str(spec), RecipeError) == spec


@pytest.mark.parametrize(
    "text",
    [
        "f(a=__import__('os').system('true'))",
        "f(a=open)",
        "f(a=x.y)",
        "f(a=[i for i in (1, 2)])",
        "f(a=lambda: 0)",
        "f(a=f'{1}')",
        "f(a=1 if True else 2)",
        "f(a=2**99)",
        "f(a=-'x')",
        "f(a=-True)",
        "f(a={'b': 1})",
        "f(a={1, 2})",
        "f(a=b'x')",
        "f(a=1j)",
        "f(a=...)",
        "f(a=1e999)",
        "f(a=-1e999)",
        "f(a=[1, (2, g())])",
        "f(a=(b:=3))",
        "f(a=1)(b=2)",
        "f(a=1).train()",
        "f(a=1), g()",
        "f(a=1) or g()",
        "f(a=1); import os",
        "f(a=1, a=2)",
        "f(3)",
        "f(*[1])",
        "f(**{'a': 1})",
        "f(a=1",
        "f(a=1))",
        "f(a=",
        "f(a='x)",
        "f(a=\x00)",
        "f((((",
        "f(a=" + "(" * 900 + ")" * 900 + ")",
        "f(a=" + "[" * 490 + "]" * 490 + ")",
        "f(a='" + "x" * LONGEST + "')",
        "f(a=" + "9" * 999999 + ")",
    ],
)
def test_nothing_but_plain_values_is_read(text):
    with pytest.raises(RecipeError, match=r"is not right: write NAME\(key=value, \.\.\.\)") as caught:
        Spec.read(text, RecipeError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_backslash_that_escapes_nothing_warns_nobody():
    with warnings.catch_warnings(action="error"):
        assert Spec.read(r"f(a='\d')", RecipeError).arguments == {"a": r"\d"}


def net(width: float = 1.0, kind: Literal["A", "B"] = "A", *, sizes: tuple[int, ...] = ()):
    pass


class Net:
    def __init__(self, depth: int, /, wide: bool = False, **others: object) -> None:
        pass


def loose(depth: "Nothing", *more):  # noqa: F821 - such annotations occur
    pass


def test_arguments_are_those_that_the_function_takes():
    def fitted(text, function):
        return Spec.read(text, RecipeError).fitted(function, RecipeError)

    assert fitted("m:net(width=2, sizes=[1, 2])", net) == {"width": 2.0, "sizes": (1, 2)}
    assert fitted("m:loose(depth='any')", loose) == {"depth": "any"}
    for text, function, sentence in [
        ("m:net(widht=2)", net, r"m:net has no argument 'widht': it takes width, kind, sizes\.$"),
        ("m:net(kind='C')", net, r"m:net: kind = 'C' is not right: Input should be 'A' or 'B'; it takes width, kind"),
        ("m:net(width=[1])", net, r"m:net: width = \[1\] is not right: .*number; it takes"),
        ("m:Net(wide=True, depths=2)", Net, r"m:Net cannot be called without 'depth'"),
        ("m:loose(more=1)", loose, r"m:loose has no argument 'more': it takes depth"),
    ]:
        with pytest.raises(RecipeError, match=sentence):
            fitted(text, function)
