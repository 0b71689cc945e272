"""Rules for operators with weights: convolutions, linear layers, products, embeddings, attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.core.units import Ints
from penjing.graph.labels import Reason, Tagged
from penjing.graph.rules.table import Call, Result, rule, unknown


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    if isinstance(value, str):
        return (-1,) * rank
    given = tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
    return given if len(given) == rank else given[:1] * rank


def _write(
    call: Call, kind: str, weight: Tagged, labels_in: Ints | None, labels_out: Ints | None, **facts: Any
) -> None:
    """File a layer and what it makes."""
    owner = weight.name.rpartition(".")[0] or weight.name or call.module or call.node
    bias = facts.pop("bias", None)
    if labels_out is not None:
        call.findings.makers.append((labels_out, owner))
    call.findings.layers.append(
        {
            "name": owner,
            "node": call.node,
            "kind": kind,
            "weight": weight.name if weight.name in call.around.parameters else "",
            "bias": bias.name if isinstance(bias, Tagged) and bias.name else None,
            "in": labels_in,
            "out": labels_out,
            **facts,
        }
    )


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(call: Call) -> Result:
    """Read the input channels, write the output channels; groups decide which of them are bound to each other.

    With one input channel a group, or more groups than channels in one, whole groups go and the group count
    follows. Otherwise the count stays, and all groups lose equally many. A module can do either; in a functional call
    the user's code decides, and the proof tells.
    """
    x: Tagged = call["input"]
    w: Tagged = call["weight"]
    bias: Tagged | None = call.get("bias")
    rank = len(w.shape) - 2
    transposed = bool(call.get("transposed", False)) or "transpose" in call.name
    groups = int(call.get("groups", 1))
    channel = len(x.shape) - rank - 1
    for d in range(channel + 1, len(x.shape)):
        call.pin(call.known(x, d), "lies along space in a convolution")
    for d in range(2, len(w.shape)):
        if (size := call.known(w, d)) is not None:
            call.labels.pin(size, Reason("is the size of a kernel", call.line, boundary=True))
    ins = call.dim(x, channel)
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    n_in, n_out = x.shape[channel], w.shape[out_axis] * (groups if transposed else 1)
    follows = False
    if groups == 1:
        call.couple(w, in_axis, ins, "in")
        outs = call.dim(w, out_axis)
        call.labels.mark(w.name, out_axis, "out")
    else:
        per_in, per_out = n_in // groups, n_out // groups
        by_group = per_in == 1 or (groups > per_in and groups >= per_out)
        if type(call.owner).__module__.startswith("torch.nn.modules"):
            by_group ^= call.level == 1 and per_in > 1
            call.choose(ins if per_in > 1 else None)
        elif ins is not None:
            by_group ^= call.level == 1
            if call.level > 1:
                call.pin(ins, f"runs in {groups} groups by a constant", fixed_by_code=True)
                ins = None
            call.assume(ins)
        if by_group:
            follows = True
            ins, outs = _by_group(call, w, ins, groups, per_in, per_out, transposed)
        else:
            outs = _by_offset(call, w, ins, groups, transposed)
    if bias is not None:
        call.couple(bias, 0, outs)
    call.read(0, -rank - 1, ins)
    facts = {
        "bias": bias,
        "reading_dim": -rank - 1,
        "writing_dim": -rank - 1,
        "in_channels": n_in,
        "out_channels": n_out,
        "groups": groups,
        "kernel": tuple(w.shape[2:]),
        "stride": _tuple(call.get("stride", 1), rank),
        "padding": _tuple(call.get("padding", 0), rank),
        "dilation": _tuple(call.get("dilation", 1), rank),
        "transposed": transposed,
        "in_size": tuple(x.shape[channel + 1 :]),
        "out_size": tuple(call.shape[channel + 1 :]),
        "follows": follows,
        "spans": (None,) * rank,
    }
    _write(call, "conv", w, ins, outs, **facts)
    lead: list[Ints | None] = [call.dim(x, d) for d in range(channel)]
    return call.tagged([*lead, outs, *[None] * rank])


def _by_group(
    call: Call, w: Tagged, ins: Ints | None, groups: int, per_in: int, per_out: int, transposed: bool
) -> tuple[Ints | None, Ints | None]:
    """Tie each group's inputs and outputs into one unit; return input and output labels."""
    if ins is None:
        call.couple(w, 0, None)
        return None, None
    unit = call.labels.tie_rows(ins.reshape(groups, per_in).T)
    if transposed:
        call.couple(w, 0, ins, "tied")
        call.labels.mark(w.name, 1, "tied")
        return ins, np.repeat(unit, per_out)
    outs = np.repeat(unit, per_out)
    call.couple(w, 0, outs, "tied")
    if per_in > 1:  # axis 1 counts inside a group and stays
        call.labels.mark(w.name, 1, "tied")
    return ins, outs


def _by_offset(call: Call, w: Tagged, ins: Ints | None, groups: int, transposed: bool) -> Ints | None:
    """Let all groups lose equally many inputs, and equally many outputs; return output labels."""
    if transposed:
        if ins is not None:
            call.labels.balance(ins.reshape(groups, -1))
        call.couple(w, 0, ins, "in")
        outs = call.dim(w, 1)
        call.labels.mark(w.name, 1, "out")
        return None if outs is None else np.tile(outs, groups)
    if ins is None:
        call.couple(w, 1, None, "in")
    else:
        table = ins.reshape(groups, -1)
        if not w.name or call.known(w, 1) is not None:
            call.couple(w, 1, call.labels.tie_rows(table), "in")
        else:
            call.labels.balance(table)
            call.labels.bind_groups(w.name, groups, ins)
    outs = call.dim(w, 0)
    call.labels.mark(w.name, 0, "out")
    if outs is not None:
        call.labels.balance(outs.reshape(groups, -1))
    return outs


@rule("linear")
def linear(call: Call) -> Result:
    """Read the last dimension, write the rows of the weight."""
    x, w, bias = call["input"], call["weight"], call.get("bias")
    ins = call.dim(x, -1)
    call.couple(w, 1, ins, "in")
    outs = call.dim(w, 0)
    call.labels.mark(w.name, 0, "out")
    if bias is not None:
        call.couple(bias, 0, outs)
    call.read(0, -1, ins)
    _linear_layer(call, x, w, bias, ins, outs, (w.shape[1], w.shape[0]))
    return call.tagged([*(call.dim(x, d) for d in range(len(x.shape) - 1)), outs])


def _linear_layer(
    call: Call,
    x: Tagged,
    w: Tagged,
    bias: Tagged | None,
    ins: Ints | None,
    outs: Ints | None,
    sizes: tuple[int, int],
    dims: tuple[int, int] = (-1, -1),
    summed: tuple[int, ...] = (),
) -> None:
    """File a linear layer; ``sizes`` and ``dims`` are those of its channels in what it reads and writes.

    Dimensions in ``summed`` are summed over before the product, and so are no positions.
    """
    among = [d for d in range(len(x.shape)) if d != dims[0] % len(x.shape) and d not in summed]
    spans = _spans(call, [(x.shape[d], call.dim(x, d)) for d in among])
    positions = tuple(n for n, _ in spans)
    _write(
        call, "linear", w, ins, outs, bias=bias, reading_dim=dims[0], writing_dim=dims[1], in_channels=sizes[0],
        out_channels=sizes[1], groups=1, kernel=(), stride=(), padding=(), dilation=(), transposed=False,
        in_size=positions, out_size=positions, follows=False, spans=tuple(labels for _, labels in spans),
    )  # fmt: skip


def _spans(call: Call, dims: list[tuple[int, Ints | None]]) -> list[tuple[int, Ints | None]]:
    """Return what a linear layer runs over for one sample: sizes, and the labels of those that may shrink.

    A batch that is folded with other dimensions is taken out of them.
    """
    if dims and dims[0][0] == call.around.batch:
        return dims[1:]
    together = math.prod(n for n, labels in dims if labels is None)
    if together % call.around.batch:
        return dims
    return [(together // call.around.batch, None), *(pair for pair in dims if pair[1] is not None)]


@rule("matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addbmm")
def product(call: Call) -> Result:
    """Multiply matrices: a weight reads what it is multiplied with; two activations need all they sum over."""
    if call.name in ("addmm", "baddbmm"):
        added, a, b = call["self"], call.get("mat1", call.get("batch1")), call.get("mat2", call.get("batch2"))
    else:
        added, (a, b) = None, call.tensors()[:2]
    if len(a.shape) < 2 or len(b.shape) < 2:
        return unknown(call)
    inner_a, inner_b = call.known(a, -1), call.known(b, -2)
    if a.name and inner_a is None:
        inner_a = call.dim(a, -1) if inner_b is None else None
    if call.from_parameters(a) or call.from_parameters(b):
        weight, other, operand, dim = (b, a, 0, -1) if call.from_parameters(b) else (a, b, 1, -2)
        inner = call.dim(other, dim)
        call.couple(weight, -2 if operand == 0 else -1, inner, "in")
        out = call.dim(weight, -1 if operand == 0 else -2)
        call.labels.mark(weight.name, (len(weight.shape) - 1 if operand == 0 else len(weight.shape) - 2), "out")
        if not call.from_parameters(other):
            sizes = (weight.shape[-2], weight.shape[-1]) if operand == 0 else (weight.shape[-1], weight.shape[-2])
            call.read(operand + (added is not None), dim, inner)
            _linear_layer(call, other, weight, None, inner, out, sizes, (dim, dim))
    else:
        if inner_a is not None and inner_b is not None:
            call.labels.tie(inner_a, inner_b)
            call.read(0 if added is None else 1, -1, inner_a)
        else:
            for labels in (inner_a, inner_b):
                call.pin(labels, "is multiplied with a matrix whose size cannot change")
    rank = len(call.shape)
    dims: list[Ints | None] = [None] * rank
    for d in range(-rank, -2):
        parts = [x for x in (a, b) if len(x.shape) >= -d and x.shape[d] == call.shape[d]]
        vectors = [call.known(x, d) for x in parts]
        dims[d] = vectors[0]
        if len(parts) == 2:
            for x, v, w in ((parts[0], *vectors), (parts[1], *vectors[::-1])):
                del x
                if v is not None and w is None:
                    call.pin(v, "meets a tensor whose size cannot change")
                    dims[d] = None
            if vectors[0] is not None and vectors[1] is not None:
                call.labels.tie(vectors[0], vectors[1])
    dims[-2], dims[-1] = call.dim(a, -2), call.dim(b, -1)
    if added is not None:
        for d in range(-len(added.shape), 0):
            if added.shape[d] == call.shape[d]:
                call.couple(added, d, dims[d])
    return call.tagged(dims)


@rule("einsum")
def einsum(call: Call) -> Result:
    """Follow the letters: equal letters go together, and a letter that is summed over is read.

    Where parameters meet an activation, a letter they sum over makes them a layer, and their own letters are written.
    """
    equation, operands = str(call["equation"]).replace(" ", ""), call["tensors"]
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not right:
        return unknown(call)
    order = sorted(range(len(terms)), key=lambda i: call.from_parameters(operands[i]))
    layer = not call.from_parameters(operands[order[0]])
    labels: dict[str, Ints | None] = {}
    for i in order:
        x = operands[i]
        from_parameters = call.from_parameters(x)
        for d, letter in enumerate(terms[i]):
            if letter in labels:
                call.couple(x, d, labels[letter], "tied" if letter in right else "in")
                continue
            labels[letter] = call.dim(x, d)
            if from_parameters and layer:
                call.labels.mark(x.name, d, "out")
            elif not from_parameters and letter not in right:
                call.read(i, d, labels[letter])
    if layer:
        _einsum_makes(call, terms, right, operands, labels)
    return call.tagged([labels[letter] for letter in right])


@dataclass(frozen=True)
class Roles:
    """Which operand of an einsum is read and which is the weight; the letters they sum over and the weight writes."""

    read: int
    weight: int
    summed: str
    made: str


def einsum_roles(terms: list[str], right: str, own: list[bool]) -> Roles | None:
    """Tell whether an einsum is a linear layer; ``own`` marks operands that come from parameters.

    It is where one activation meets one weight, they sum over one letter, and the weight adds one of its own. Letters
    of the activation that stay are its batch and positions, the others it is summed over beforehand.
    """
    if sorted(own) != [False, True]:
        return None
    w, i = own.index(True), own.index(False)
    shared = [letter for letter in terms[w] if letter in terms[i]]
    made = [letter for letter in terms[w] if letter not in terms[i]]
    if len(shared) != 1 or len(made) != 1 or shared[0] in right or made[0] not in right:
        return None
    return Roles(i, w, shared[0], made[0])


def _einsum_makes(
    call: Call, terms: list[str], right: str, operands: list[Tagged], labels: dict[str, Ints | None]
) -> None:
    """File the layer that an einsum is, or else the letters of weights that come into being."""
    own = [call.from_parameters(x) for x in operands]
    roles = einsum_roles(terms, right, own)
    if roles is not None:
        x, w = operands[roles.read], operands[roles.weight]
        at, out = terms[roles.read].index(roles.summed), right.index(roles.made)
        sizes = (x.shape[at], call.shape[out])
        dims = (at - len(x.shape), out - len(call.shape))
        summed = tuple(d for d, letter in enumerate(terms[roles.read]) if letter not in right)
        _linear_layer(call, x, w, None, labels[roles.summed], labels[roles.made], sizes, dims, summed)
        return
    for i, x in enumerate(operands):
        elsewhere = "".join(term for j, term in enumerate(terms) if j != i)
        for letter in terms[i] if own[i] else "":
            made = labels[letter]
            if letter in right and letter not in elsewhere and made is not None:
                call.findings.makers.append((made, x.name.rpartition(".")[0] or call.node))


@rule("embedding")
def embedding(call: Call) -> Result:
    """Look rows up: the columns of the table are written."""
    table: Tagged = call["weight"]
    outs = call.dim(table, 1)
    call.labels.mark(table.name, 1, "out")
    if outs is not None:
        call.findings.makers.append((outs, table.name.rpartition(".")[0] or table.name))
    return call.tagged([*[None] * (len(call.shape) - 1), outs])


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Result:
    """Attend: queries and keys are summed over and scaled by their size, values pass."""
    q, k, v = call["query"], call["key"], call["value"]
    for x in (q, k):
        call.pin(call.known(x, -1), "is summed over in attention")
    dims: list[Ints | None] = []
    for d in range(-len(call.shape), 0):
        vectors = [call.known(x, d) for x in (q, k, v)]
        if d == -1:
            dims.append(vectors[2])
            continue
        for vector in vectors:
            call.pin(vector, "is a head or position of attention")
        dims.append(None)
    return call.tagged(dims)
