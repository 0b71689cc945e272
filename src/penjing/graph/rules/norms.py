"""Rules for normalisations: over each channel, over groups of them, over all of them together."""

from __future__ import annotations

from torch import nn

from penjing.graph.labels import Tagged
from penjing.graph.rules.table import Call, Result, rule


@rule("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm", "instance_norm", "cudnn_batch_norm")
def per_channel_norm(call: Call) -> Result:
    """Normalise each channel by itself."""
    x: Tagged = call["input"]
    labels = call.dim(x, 1)
    for key in ("weight", "bias", "running_mean", "running_var"):
        vector = call.get(key)
        if isinstance(vector, Tagged):
            call.couple(vector, 0, labels)
    if labels is not None and isinstance(call.owner, nn.modules.batchnorm._NormBase):
        call.findings.norms[call.module] = (labels, 0)
    return _normalised(call, x)


@rule("group_norm", "native_group_norm")
def group_norm(call: Call) -> Result:
    """Normalise groups of channels: a whole group is one unit, and the group count follows."""
    x: Tagged = call.tensors()[0]
    labels = call.dim(x, 1)
    groups = int(call.get("num_groups", call.get("group")))
    for key in ("weight", "bias"):
        vector = call.get(key)
        if isinstance(vector, Tagged):
            call.couple(vector, 0, labels)
    if labels is not None:
        if groups == 1:
            call.pin(labels, "is normalised together with all channels (one group)")
        elif not isinstance(call.owner, nn.GroupNorm):
            call.pin(labels, f"is normalised in {groups} groups by a constant", fixed_by_code=True)
        else:
            call.labels.tie_rows(labels.reshape(groups, -1).T)
            call.findings.norms[call.module] = (labels, len(labels) // groups)
    return _normalised(call, x)


@rule("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(call: Call) -> Result:
    """Normalise over the last dimensions together, so their labels must stay."""
    x: Tagged = call["input"]
    count = len(call["normalized_shape"])
    for d in range(-count, 0):
        call.pin(call.known(x, d), f"is normalised together with all channels by {call.name}")
        for key in ("weight", "bias"):
            if isinstance(call.get(key), Tagged):
                call.couple(call[key], d, call.known(x, d))
    return _normalised(call, x)


def _normalised(call: Call, x: Tagged) -> Result:
    """Return the labels of what is normalised, and none for the statistics that some operators return beside it."""
    results = [call.tagged(call.dims(x)), *(Tagged.plain(shape) for shape in call.shapes[1:])]
    return results if len(results) > 1 else results[0]
