import torch
from hypothesis import given
from hypothesis import strategies as st

from penjing.zoo.shuffle import interleaved


def test_the_first_of_each_part_come_first():
    assert interleaved(6, 2).index.tolist() == [0, 3, 1, 4, 2, 5]


@given(st.integers(1, 8), st.integers(1, 8))
def test_it_is_a_transposed_reshape_and_undone_by_the_other_count(parts, each):
    x = torch.randn(2, parts * each, 2, 3)
    y = interleaved(parts * each, parts)(x)
    assert torch.equal(y, x.view(2, parts, each, 2, 3).transpose(1, 2).flatten(1, 2))
    assert torch.equal(interleaved(parts * each, each)(y), x)
