import pytest
import torch

from penjing.exporting.inputs import batch_of, bound, names_of, open_batch, with_batch

from .nets import Several


def test_a_batch_grows_and_shrinks_by_rows() -> None:
    x, table = torch.arange(6).reshape(3, 2), torch.zeros(5, 2)
    (many, same), kwargs = with_batch(((x, table), {"again": [x], "k": 3}), 4)
    assert many.tolist() == [[0, 1], [2, 3], [4, 5], [0, 1]]
    assert same is table and kwargs["k"] == 3
    assert kwargs["again"][0].tolist() == many.tolist()
    (one, _), _ = with_batch(((x, table), {}), 1)
    assert one.tolist() == [[0, 1]]


def test_numbers_and_scalars_have_no_batch() -> None:
    assert batch_of(((torch.tensor(2.0), 3), {"x": torch.zeros(4, 1)})) == 4
    assert batch_of(((3, torch.tensor(2.0)), {})) is None
    assert with_batch(((3,), {}), 5) == ((3,), {})


def test_only_dimension_0_of_batched_tensors_is_open() -> None:
    model, x = Several(), torch.zeros(3, 3, 8, 8)
    example = ((x, 2), {"other": torch.zeros(3, 4), "table": torch.zeros(2, 2)})
    assert open_batch(model, example, "b") == {"x": {0: "b"}, "factor": None, "other": {0: "b"}, "table": {}}


def test_inputs_are_named_after_the_forward() -> None:
    x = torch.zeros(3, 1)
    arguments = bound(Several(), ((x, 2), {"table": x}))
    assert list(arguments) == ["x", "factor", "table"]
    assert names_of(arguments, "input") == ["x", "table"]


@pytest.mark.parametrize("value", [None, 3, [], {"a": None}])
def test_what_is_no_tensor_has_no_name(value: object) -> None:
    assert names_of(value, "output") == []
