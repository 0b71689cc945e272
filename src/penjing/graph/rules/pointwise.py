"""Rules for operators that treat every element alike, reduce along dimensions, or only touch space."""

from __future__ import annotations

from typing import Any

from penjing.core.units import Ints
from penjing.graph.labels import Tagged
from penjing.graph.rules.table import Call, Result, rule

SAME = (
    "relu", "relu6", "silu", "gelu", "mish", "elu", "selu", "celu", "leaky_relu", "rrelu", "hardtanh", "hardswish",
    "hardsigmoid", "hardshrink", "softshrink", "softplus", "logsigmoid", "log_sigmoid", "threshold", "dropout",
    "feature_dropout", "alpha_dropout", "native_dropout", "contiguous", "clone", "detach", "alias", "to", "_to_copy",
    "type_as", "float", "lift_fresh_copy", "zeros_like", "ones_like", "rand_like", "full_like", "empty_like",
    "randn_like", "where", "masked_fill", "clamp", "clip", "copy", "square", "nan_to_num", "fill", "zero", "bernoulli",
    "positive", "expand_copy", "identity", "result_type", "rsub", "true_divide", "floor_divide", "addcmul", "addcdiv",
    "lerp", "glu_jvp", "fake_quantize_per_tensor_affine", "__and__", "__or__", "bitwise_not", "logical_not",
    "maximum", "minimum", "max_other", "logaddexp", "float_power", "_assert_tensor_metadata", "tanhshrink", "softsign",
)  # fmt: skip


@rule(*SAME)
def elementwise(call: Call) -> Result:
    """Tie the operands where they meet; broadcasting repeats one element, so its label must stay."""
    tensors, shape = call.tensors(), call.shape
    dims = [_meet(call, tensors, d - len(shape), shape[d]) for d in range(len(shape))]
    return [call.tagged(dims, i) for i in range(len(call.shapes))] if len(call.shapes) > 1 else call.tagged(dims)


def _meet(call: Call, tensors: list[Tagged], d: int, size: int) -> Ints | None:
    base: Ints | None = None
    stiff = False
    waiting: list[Tagged] = []
    for x in tensors:
        if len(x.shape) < -d:
            continue
        labels = call.known(x, d)
        if x.shape[d] != size:
            call.pin(labels, "is one channel that is broadcast over many")
        elif x.name and labels is None:
            waiting.append(x)
        elif labels is None:
            stiff = True
        elif base is None:
            base = labels
        else:
            call.labels.tie(base, labels)
    if stiff:
        if size > 1:
            call.pin(base, "meets a tensor whose size cannot change")
        return base if size == 1 else None
    for x in waiting:
        if base is None:
            base = call.dim(x, d)
        else:
            call.couple(x, d, base)
    return base


@rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided", "sym_size", "sym_numel")
def fresh(call: Call) -> Result:
    """Make a tensor of a given size; the first argument lends its type alone."""
    return Tagged.plain(call.shape)


ADDITIVE = ("sum", "linalg_vector_norm", "norm", "count_nonzero", "frobenius_norm")
"""Reductions that a channel of zeros does not change, so that they read channels as a weighted sum does."""


def reduced_dims(call: Call, rank: int) -> list[int]:
    """Return the dimensions an operator reduces, all of them where it names none."""
    given: Any = call.args.get("dim", call.args.get("dims"))
    if given is None or given == []:
        return list(range(rank))
    return [d % rank for d in (given if isinstance(given, list | tuple) else [given])]


@rule(
    "mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std", "var_mean", "std_mean", "linalg_vector_norm",
    "norm", "logsumexp", "all", "any", "argmax", "argmin", "median", "nanmean", "aminmax", "count_nonzero",
    "frobenius_norm",
)  # fmt: skip
def reduction(call: Call) -> Result:
    """Reduce: over space it leaves channels alone, over channels it needs them all."""
    if call.args.get("other") is not None:
        return elementwise(call)
    x: Tagged = call.tensors()[0]
    rank = len(x.shape)
    gone = reduced_dims(call, rank)
    for d in gone:
        if x.shape[d] > 1 and call.dim(x, d) is not None:
            if call.name in ADDITIVE and not call.from_parameters(x):
                call.read(0, d, call.dim(x, d))
            else:
                call.pin(call.dim(x, d), f"is reduced over its channels by {call.name}")
    keep = bool(call.get("keepdim", False))
    dims = [None if d in gone else call.dim(x, d) for d in range(rank) if keep or d not in gone]
    return [call.tagged(dims, i) for i in range(len(call.shapes))] if len(call.shapes) > 1 else call.tagged(dims)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "sort", "topk", "softmin", "renorm")
def along(call: Call) -> Result:
    """Normalise or accumulate along one dimension, which needs all of it."""
    x: Tagged = call.tensors()[0]
    d = int(call.get("dim", -1)) % len(x.shape)
    call.pin(call.known(x, d), f"takes part in {call.name} over its channels")
    dims: list[Ints | None] = [None if i == d else call.dim(x, i) for i in range(len(x.shape))]
    results = [call.tagged(dims, i) for i in range(len(call.shapes))]
    return results if len(results) > 1 else results[0]


@rule(
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d",
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "max_pool2d_with_indices", "max_pool1d_with_indices",
    "max_pool3d_with_indices", "max_unpool2d", "max_unpool3d", "lp_pool2d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d", "upsample_trilinear3d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact1d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "grid_sampler", "grid_sampler_2d", "im2col_backward",
)  # fmt: skip
def spatial(call: Call) -> Result:
    """Change space only; every channel stands for itself."""
    x: Tagged = call.tensors()[0]
    lead = len(x.shape) - next((int(c) for c in call.name if c.isdigit()), 2)
    for d in range(lead, len(x.shape)):
        call.pin(call.known(x, d), f"lies along space in {call.name}")
    dims: list[Ints | None] = [*(call.dim(x, d) for d in range(lead)), *[None] * (len(x.shape) - lead)]
    for other in call.tensors()[1:]:
        if other.shape[:lead] == x.shape[:lead] and call.name.startswith("max_unpool"):
            for d in range(lead):
                call.couple(other, d, dims[d])
    results = [call.tagged(dims, i) for i in range(len(call.shapes))]
    return results if len(results) > 1 else results[0]


@rule("pad", "constant_pad_nd")
def pad(call: Call) -> Result:
    """Pad: along space nothing changes; along channels a constant in the code adds channels that must stay."""
    x: Tagged = call.tensors()[0]
    amounts = [int(n) for n in call["pad"]]
    dims = call.dims(x)
    for i in range(len(amounts) // 2):
        d = len(dims) - 1 - i
        before, after = amounts[2 * i], amounts[2 * i + 1]
        labels = dims[d]
        if (before, after) == (0, 0) or labels is None:
            continue
        if call.get("mode", "constant") != "constant":
            call.pin(labels, f"is padded across channels by {call.get('mode')}", fixed_by_code=True)
            dims[d] = None
            continue
        why = "is zero-padded by a constant number of channels"
        kept = labels[max(0, -before) : len(labels) - max(0, -after)]
        if len(kept) < len(labels):
            call.pin(labels, "is cropped by a constant number of channels", fixed_by_code=True)
        parts = [call.fixed(max(0, n), why, fixed_by_code=True) for n in (before, after)]
        dims[d] = _cat(parts[0], kept, parts[1])
    return call.tagged(dims)


def _cat(*parts: Ints) -> Ints:
    import numpy as np

    return np.concatenate(parts)


@rule("glu")
def glu(call: Call) -> Result:
    """Gate one half of the channels by the other: position i of both halves goes together."""
    x: Tagged = call.tensors()[0]
    d = int(call.get("dim", -1)) % len(x.shape)
    dims = call.dims(x)
    labels = dims[d]
    if labels is not None:
        dims[d] = call.labels.tie_rows(labels.reshape(2, -1))
    return call.tagged(dims)


@rule("prelu", "_prelu_kernel")
def prelu(call: Call) -> Result:
    """Scale negative values by channel; a single slope serves all."""
    x, slope = call["self"], call["weight"]
    dims = call.dims(x)
    if slope.shape[0] > 1:
        call.couple(slope, 0, dims[1])
    return call.tagged(dims)
