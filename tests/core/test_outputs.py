from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from penjing.core.errors import TrainError
from penjing.core.outputs import first_tensor, input_of, tensors_in

A, B, C = torch.tensor(1), torch.tensor(2), torch.tensor(3)


@dataclass
class Output:
    loss: object = None
    features: object = None
    logits: object = None


Named = namedtuple("Named", "features logits")
Pair = namedtuple("Pair", "scores features")


@pytest.mark.parametrize(
    "outputs", [A, (A, B), [None, A, B], {"b": A, "a": None}, ("name", {"x": [3, (A,)]}, B), {"heads": (A, B)}]
)
def test_the_first_of_a_tuple_and_the_only_one_of_a_dict(outputs):
    assert first_tensor(outputs) is A


@pytest.mark.parametrize(
    "outputs",
    [
        {"features": B, "logits": A},
        OrderedDict(loss=B, logits=A, hidden_states=(B, C)),
        {"pred": B, "output": C, "out": A, "aux": B},
        {"output": A, "pred": B},
        {"features": B, "pred": [A, B]},
        {"logits": None, "out": A, "aux": B},
        Output(loss=B, features=C, logits=A),
        Named(B, A),
        Pair(A, B),
        SimpleNamespace(hidden=B, logits=A),
        SimpleNamespace(hidden=None, scores=A),
        ({"logits": A, "features": B}, C),
    ],
)
def test_names_tell_the_logits(outputs):
    assert first_tensor(outputs) is A


@pytest.mark.parametrize(
    "outputs", [{"features": A, "scores": B}, SimpleNamespace(features=A, scores=B), ({"features": A, "scores": B}, C)]
)
def test_several_tensors_without_a_known_name_are_refused(outputs):
    with pytest.raises(TrainError, match=r"several tensors \('features', 'scores'\), and no name tells"):
        first_tensor(outputs)


@pytest.mark.parametrize("outputs", [None, (), "logits", {"a": 1.0}, Output(), 3, object()])
def test_none_is_refused(outputs):
    with pytest.raises(TrainError, match=type(outputs).__name__):
        first_tensor(outputs)


def test_a_batch_is_read_in_its_own_order_whatever_its_names():
    assert input_of({"image": A, "pred": B}) is A
    assert input_of([A, B]) is A
    with pytest.raises(TrainError, match="batch is str"):
        input_of("image")


def test_every_tensor_is_found():
    assert list(tensors_in((A, {"x": [B, None]}, Output(logits=C)))) == [A, B, C]
