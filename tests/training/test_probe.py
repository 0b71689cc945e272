import contextlib
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.errors import BudgetError, DataError, TrainError
from penjing.data.data import Data
from penjing.training.probe import probe

from .toys import Normed, Plain, ToySplit, built, equal, toy, weights


def data(split=None, **options):
    split = toy(12, **options) if split is None else split
    return Data("toys", split, split, split, ("a", "b", "c", "d"), (3, 6, 6))


def grey():
    return data(ToySplit(np.zeros((4, 1, 6, 6), np.float32), np.arange(4)))


EXAMPLE = (torch.zeros(2, 3, 6, 6),)


class Wrapped(nn.Module):
    """A good network whose outputs a test spoils."""

    def __init__(self, spoil, classes=4):
        super().__init__()
        self.inner, self.spoil = built(Plain, classes=classes), spoil

    def forward(self, x):
        return self.spoil(self.inner(x))


class Raising(Wrapped):
    def forward(self, x):
        self.inner.conv1(x)
        raise ValueError("width 7 is odd\nand more")


def changed(model, name, value):
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0] = value
    return model


def said(model, given, kind=TrainError):
    with pytest.raises(kind) as caught:
        probe(model, given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("given", [data(), EXAMPLE])
def test_what_fits_passes_and_is_left_as_it_was(given):
    class Counting(Normed):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            assert not self.training
            assert len(x) == 2
            self.calls += 1
            torch.rand(1)
            return super().forward(x)

    model = built(Counting).train()
    model.bn.eval()
    before, state = weights(model), torch.get_rng_state()
    probe(model, given)
    assert equal(before, weights(model))
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, model.bn.training, model.drop.training) == (True, False, True)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_modes_and_hooks_are_restored_after_an_error():
    model = built(Normed).train()
    said(model, grey())
    assert model.training
    assert model.bn.training
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_test_is_not_read():
    given = data()
    probe(built(Plain), given)
    assert given.test_reads == 0


def test_other_channels_name_the_layer_the_pictures_and_the_way_out():
    assert said(built(Plain), grey()) == (
        "conv1 reads 3 channels and gets 1. The pictures of toys are [2, 1, 6, 6]; repeat the grey channel three times "
        "(folders: give mean and std of three numbers), or change conv1."
    )
    text = said(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 4)), data())
    assert "0 reads 1 channels and gets 3" in text
    assert "turn the pictures grey" in text
    assert "give pictures of 5 channels" in said(nn.Conv2d(5, 4, 3), EXAMPLE)
    assert "0 reads 1 channels and gets 3" in said(nn.Sequential(nn.BatchNorm2d(1)), EXAMPLE)


def test_a_misfit_inside_the_network_is_told_as_one():
    assert said(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3)), EXAMPLE) == (
        "1 reads 5 channels and gets 4. The example is [2, 3, 6, 6]; look at the layers before it."
    )
    text = said(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), data())
    assert "1 reads 48 features and gets 108. The pictures of toys are [2, 3, 6, 6]; give them the size" in text


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", [data(), EXAMPLE])
def test_other_precisions(kind, given):
    text = said(built(Plain).to(kind), given)
    assert text == (
        f"The model's parameters are {kind} (first: conv1.weight) and its inputs torch.float32; call model.float()."
    )


def test_one_layer_of_another_precision_is_named_when_the_forward_fails():
    model = built(Plain)
    model.linear.double()
    assert "torch.float64 (first: linear.weight)" in said(model, data())


def test_a_forward_that_casts_for_itself_passes():
    model = built(Plain)
    model.extra = nn.Parameter(torch.zeros((), dtype=torch.float64))
    probe(model, data())
    probe(built(Plain).double(), (EXAMPLE[0].double(),))


def test_no_weights_yet():
    with torch.device("meta"):
        model = Plain()
    assert "conv1.weight is on the meta device, so the model has no weights yet" in said(model, data())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert "0.weight has no size yet" in said(nn.Sequential(nn.LazyConv2d(4, 3)), data())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_name_the_first(value):
    assert said(changed(built(Plain), "conv2.bias", value), data()).startswith("conv2.bias of the model holds NaN or")
    model = built(Normed)
    model.bn.running_var[1] = value
    assert said(model, EXAMPLE).startswith("bn.running_var of the model holds NaN or infinity")


def test_broken_pictures():
    split = toy(12)
    split.x[1, 0, 0, 0] = np.nan
    assert "The pictures of toys hold NaN or infinity (float32 [2, 3, 6, 6])" in said(
        built(Plain), data(split), DataError
    )
    assert "The example holds NaN" in said(built(Plain), (EXAMPLE[0] * float("nan"),), DataError)
    assert said(built(Plain), data(toy(0)), DataError) == "toys, train, has no pictures."


@pytest.mark.parametrize("given", [data(), EXAMPLE])
def test_outputs_that_are_not_finite(given):
    text = said(Wrapped(lambda z: z / 0), given)
    assert text.startswith("Wrapped returned NaN or infinity for float32 [2, 3, 6, 6], though its weights")


@pytest.mark.parametrize("given", [data(), EXAMPLE])
@pytest.mark.parametrize("outputs", [None, "logits", {"logits": 3}])
def test_outputs_without_a_tensor(given, outputs):
    assert f"returned {type(outputs).__name__} without a tensor" in said(Wrapped(lambda z: outputs), given)


def test_outputs_that_are_no_scores_of_the_classes():
    assert "[2, 4, 1]" in said(Wrapped(lambda z: z[..., None]), data())
    assert "[1, 4]" in said(Wrapped(lambda z: z[:1]), data())
    assert "2 outputs and the labels go up to 3" in said(Wrapped(lambda z: z, classes=2), data())
    assert "'features', 'scores'" in said(Wrapped(lambda z: {"features": z, "scores": z}), data())
    for spoil in (lambda z: z[..., None], lambda z: z[:1], lambda z: {"features": z, "scores": z}):
        probe(Wrapped(spoil), EXAMPLE)
    probe(Wrapped(lambda z: z, classes=2), EXAMPLE)
    probe(Wrapped(lambda z: SimpleNamespace(features=z / 0, logits=z)), data())


def test_whatever_the_forward_raises_is_one_sentence():
    assert said(Raising(None), data()) == "Raising failed on float32 [2, 3, 6, 6] with ValueError: width 7 is odd."

    def ours(z):
        raise BudgetError("our own sentence")

    assert said(Wrapped(ours), data(), BudgetError) == "our own sentence"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Unflatten(1, (3, 2)))
    assert said(model, EXAMPLE).startswith("1 failed on float32 [2, 3, 6, 6] with ")


def test_a_failure_that_the_forward_caught_is_not_blamed():
    class Trying(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Conv2d(1, 2, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            with contextlib.suppress(RuntimeError):
                self.wrong(x)
            self.right(x)
            raise KeyError("k")

    assert said(nn.Sequential(Trying()), EXAMPLE).startswith("0 failed on float32 [2, 3, 6, 6] with KeyError")


def test_forwards_of_several_inputs():
    class Two(Plain):
        def forward(self, x, mask, *, scale=1):
            return super().forward(x * mask * scale)

    model = built(Two)
    assert said(model, data()).startswith("The forward of Two needs 2 inputs (x, mask) and is given 1; wrap it")
    probe(model, (EXAMPLE[0], torch.ones(1)))
    assert "needs 1 input (x) and is given 2" in said(built(Plain), (EXAMPLE[0], torch.ones(1)))


@pytest.mark.parametrize("take", [lambda batch: batch["image"], lambda batch: batch.get("image")])
def test_forwards_of_a_dict(take):
    class Batch(Plain):
        def forward(self, batch):
            return super().forward(take(batch))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of indexing a tensor by a string
        text = said(built(Batch), data())
    assert text.startswith(
        "The forward of Batch wants a dict with 'image' and is given one tensor (float32 [2, 3, 6, 6])"
    )
    probe(built(Batch), ({"image": EXAMPLE[0]},))
