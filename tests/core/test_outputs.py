import pytest
import torch

from penjing.core.errors import TrainError
from penjing.core.outputs import first_tensor

A, B = torch.tensor(1), torch.tensor(2)


@pytest.mark.parametrize("outputs", [A, (A, B), [None, A, B], {"b": A, "a": B}, ("name", {"x": [3, (A,)]}, B)])
def test_depth_first_in_their_own_order(outputs):
    assert first_tensor(outputs) is A


@pytest.mark.parametrize("outputs", [None, (), "logits", {"a": 1.0}])
def test_none_is_refused(outputs):
    with pytest.raises(TrainError, match=type(outputs).__name__):
        first_tensor(outputs)
