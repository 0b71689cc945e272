"""Networks that nobody here wrote: what may be cut, and whether a cut to 0.7 of their MACs is proved and exported.

The networks are those of timm, torchvision, segmentation-models-pytorch, pytorchcv, efficientnet-pytorch, monai and
spandrel, as far as they are installed, with random weights: nothing is downloaded, and no accuracy is told. Scales and
statistics of norms are drawn at random first, since many of these networks begin with branches that add nothing, of
which any cut would be proved. Every row is a process of its own, written as it is done; a run that stops goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import penjing
from penjing.core.errors import PenjingError, PlanError
from penjing.core.files import write_whole
from penjing.core.units import Kept
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph.evidence import Evidence
from penjing.graph.graph import Graph
from penjing.graph.proof import prove
from penjing.graph.surgery import cut
from penjing.graph.trace import plain
from rows import machine

SHARE = 0.7
"""How much of the MACs a cut may leave."""

TIMEOUT = 900
"""Seconds after which a row is given up."""

CLASSIFIERS = """
convnext_atto cs3darknet_s cspdarknet53 densenet121 dla34 dpn68 eca_resnext26ts edgenext_xx_small efficientnet_b0
efficientvit_b0 ese_vovnet19b_dw fastvit_t8 focalnet_tiny_srf gcresnext26ts ghostnet_100 ghostnetv2_100 hardcorenas_a
hgnetv2_b0 hrnet_w18_small inception_next_atto inception_v3 lcnet_050 legacy_seresnet18 mixnet_s mnasnet_100
mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small mobileone_s0 mobilevitv2_050 nf_regnet_b0 poolformer_s12
regnetx_002 regnety_002 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resnest14d resnet18 resnet26d
resnetblur50 rexnet_100 selecsls42b semnasnet_075 seresnext26d_32x4d skresnet18 starnet_s1 tinynet_e tresnet_m vgg11_bn
vovnet39a xception41 convnextv2_atto
""".split()  # noqa: SIM905  (a hundred quotes less)
"""Names of timm, of most families of convolutional networks it has, and some that are half transformers."""

BACKBONES = ["resnet18", "mobilenetv3_large_100", "hrnet_w18_small", "regnety_002"]
"""Names of timm that are asked for their maps (``features_only=True``), as a detector does."""

SEGMENTERS = ["Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3Plus", "UPerNet"]


@dataclass(frozen=True)
class Stranger:
    """How to build a network: its package, a function of that package's modules, and an input (without batch)."""

    package: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 128, 128)


def _call(path: str, *args: Any, **options: Any) -> Callable[[], nn.Module]:
    """Return a function that imports ``package.module:function`` and calls it."""

    def build() -> nn.Module:
        module, _, name = path.partition(":")
        made: nn.Module = attrgetter(name)(importlib.import_module(module))(*args, **options)
        return made

    return build


def _timm(name: str, **options: Any) -> Stranger:
    return Stranger("timm", _call("timm:create_model", name, pretrained=False, **options), (3, 96, 96))


def strangers() -> dict[str, Stranger]:
    """Return all networks by the name of their row."""
    found = {f"timm/{name}": _timm(name) for name in CLASSIFIERS}
    found |= {f"timm/features/{name}": _timm(name, features_only=True) for name in BACKBONES}
    for name in SEGMENTERS:
        build = _call(f"segmentation_models_pytorch:{name}", "resnet18", encoder_weights=None, classes=4)
        found[f"smp/{name}"] = Stranger("segmentation-models-pytorch", build)
    for encoder in ("mobilenet_v2", "mit_b0", "tu-mobilenetv3_large_100"):
        build = _call("segmentation_models_pytorch:Unet", encoder, encoder_weights=None, classes=4)
        found[f"smp/Unet/{encoder}"] = Stranger("segmentation-models-pytorch", build)
    for name in ("googlenet", "shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet0_5"):
        options = {"init_weights": False} if name == "googlenet" else {}
        found[f"torchvision/{name}"] = Stranger(
            "torchvision", _call(f"torchvision.models:{name}", weights=None, **options)
        )
    for name in ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"):
        build = _call(f"torchvision.models.segmentation:{name}", weights=None, weights_backbone=None, num_classes=4)
        found[f"torchvision/{name}"] = Stranger("torchvision", build)
    build = _call(
        "torchvision.models.detection.backbone_utils:resnet_fpn_backbone", backbone_name="resnet18", weights=None
    )
    found["torchvision/resnet_fpn_backbone"] = Stranger("torchvision", build)
    for name in ("shufflenet_g3_wd4", "menet108_8x1_g3", "igcv3_wd4", "peleenet", "bam_resnet18", "cbam_resnet18",
                 "fdmobilenet_wd4", "octresnet10_ad2", "proxylessnas_cpu", "sharesnet18", "cgnet_cityscapes",
                 "dabnet_cityscapes", "lednet_cityscapes", "lwopenpose2d_mobilenet_cmupan_coco",
                 "simplepose_resnet18_coco", "xdensenet40_2_k24_bc_cifar10", "pyramidnet110_a48_cifar10",
                 "resnet20_cifar10", "vovnet27s"):  # fmt: skip
        side = 32 if name.endswith("cifar10") else 128 if "_" in name and name.endswith(("scapes", "coco")) else 224
        found[f"pytorchcv/{name}"] = Stranger(
            "pytorchcv", _call("pytorchcv.model_provider:get_model", name), (3, side, side)
        )
    build = _call("efficientnet_pytorch:EfficientNet.from_name", "efficientnet-b0")
    found["efficientnet_pytorch/efficientnet-b0"] = Stranger("efficientnet_pytorch", build)
    monai: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        "UNet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": (16, 32, 64), "strides": (2, 2),
                  "num_res_units": 2}, (1, 64, 64)),
        "BasicUNet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, (1, 64, 64)),
        "AttentionUnet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "channels": (16, 32, 64),
                           "strides": (2, 2)}, (1, 64, 64)),
        "SegResNet": ({"spatial_dims": 2, "init_filters": 16, "in_channels": 1, "out_channels": 3}, (1, 64, 64)),
        "VNet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, (1, 64, 64)),
        "DynUNet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3, "kernel_size": [3, 3, 3],
                     "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}, (1, 64, 64)),
        "HighResNet": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, (1, 64, 64)),
    }  # fmt: skip
    for name, (options, shape) in monai.items():
        found[f"monai/{name}"] = Stranger("monai", _call(f"monai.networks.nets:{name}", **options), shape)
    found["monai/UNet3d"] = Stranger(
        "monai", _call("monai.networks.nets:BasicUNet", spatial_dims=3, in_channels=1, out_channels=3), (1, 32, 32, 32)
    )
    for path, options in (
        ("ESRGAN.__arch.RRDB:RRDBNet", {"num_blocks": 2}),
        ("Compact.__arch.SRVGG:SRVGGNetCompact", {"num_conv": 4}),
        ("NAFNet.__arch.NAFNet_arch:NAFNet", {"width": 16, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}),
    ):
        build = _call(f"spandrel.architectures.{path}", **options)
        found[f"spandrel/{path.rpartition(':')[2]}"] = Stranger("spandrel", build, (3, 64, 64))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains this")
    parser.add_argument("--again", action="store_true", help="also rows that ended in an error before")
    parser.add_argument("--out", type=Path, default=Path("strangers.json"), metavar="FILE")
    parser.add_argument("--row", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    everyone = strangers()
    if options.row:
        print(json.dumps(row(everyone[options.row])))
        return
    table = json.loads(options.out.read_text()) if options.out.exists() else {"machine": machine(), "rows": {}}
    missing: dict[str, int] = {}
    for name, stranger in everyone.items():
        before = table["rows"].get(name)
        if options.only not in name or (before and not (options.again and "error" in before)):
            continue
        if version(stranger.package) is None:
            missing[stranger.package] = missing.get(stranger.package, 0) + 1
            continue
        table["rows"][name] = in_process(name)
        write_whole(options.out, json.dumps(table, indent=1).encode())
        print(line(name, table["rows"][name]), flush=True)
    for package, count in missing.items():
        print(f"{package} is not installed, so {count} of its networks are left out; pip install {package}.")
    print(summary(table["rows"]))


def version(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def in_process(name: str) -> dict[str, Any]:
    """Make one row in a process of its own, so that a crash or a leak ends there."""
    command = [sys.executable, __file__, "--row", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {TIMEOUT} s"}
    except (IndexError, ValueError):
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"error": f"the process ended with {done.returncode}: {last[:300]}"}
    return facts


def row(stranger: Stranger) -> dict[str, Any]:
    """Build, look, and cut to the budget without data: proof, export, parity."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    declare_operators()
    facts: dict[str, Any] = {"package": stranger.package, "version": version(stranger.package)}
    facts["input"] = list(stranger.shape)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            model = stir(stranger.build().eval())
    except Exception as error:
        return {**facts, "error": f"cannot be built: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    x = torch.randn(2, *stranger.shape)
    x[1] *= 3
    try:
        start = time.perf_counter()
        graph = penjing.inspect(model, x)
        facts["trace_seconds"] = round(time.perf_counter() - start, 2)
        facts |= {"free": graph.share_free, "sites": len(graph.sites), "macs": sum(one.macs for one in graph.layers)}
        facts["pinned"] = [{"where": n.where, "channels": n.units, "why": n.why, "line": n.line} for n in graph.notes]
        kept = planned(model, graph)
        small = plain(model)
        cut(small, graph, kept)
        facts["macs_after"] = sum(layer.shrunk(graph.gone(kept)).macs for layer in graph.layers)
        proof = prove(graph, plain(model), small, kept)
        facts |= {"proof": proof.difference, "spread": spread(small, x)}
        if not proof.ok:
            return {**facts, "error": f"the cut {proof.verdict}"}
        with tempfile.TemporaryDirectory() as folder:
            path = export_onnx(small, (x,), {}, Path(folder) / "small.onnx")
            facts["parity"] = check_parity(small, path, [(x,)]).relative
    except PenjingError as error:
        facts["error"] = f"{type(error).__name__}: {error}"
    except Exception as error:
        facts["error"] = f"penjing's own: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return facts


def planned(model: nn.Module, graph: Graph) -> dict[str, Kept]:
    """Keep of every site the same share of its units, those of the largest weights: the most that ``SHARE`` allows.

    Raises: PlanError when nothing that small is left.
    """
    evidence = Evidence(model, graph)
    order = {site.name: evidence.filters(site).abs().sum(1).argsort(descending=True).numpy() for site in graph.sites}
    whole = sum(layer.macs for layer in graph.layers)
    for share in np.arange(0.99, 0, -0.01):
        kept = {name: np.sort(units[: max(1, round(len(units) * share))]) for name, units in order.items()}
        gone = graph.gone(kept)
        if sum(layer.shrunk(gone).macs for layer in graph.layers) <= SHARE * whole:
            return kept
    raise PlanError(f"no cut leaves {SHARE:g} of the MACs: {graph.share_free:.0%} of the channels are free.")


@torch.no_grad()
def spread(model: nn.Module, x: Tensor) -> float:
    """Return how far the outputs for two pictures are apart, relative to their size; at zero a proof tells nothing."""
    found = [t for t in tree_leaves(model(x)) if isinstance(t, Tensor) and t.is_floating_point() and t.numel()]
    return min(float((t[0] - t[1]).abs().max() / t.abs().max().clamp(min=1e-12)) for t in found)


def declare_operators() -> None:
    """Declare the operators of a torchvision whose binary belongs to another build of torch.

    Its networks need none of them, but it cannot be imported where they are unknown.
    """
    with contextlib.suppress(ImportError):
        importlib.metadata.version("torchvision")
        with contextlib.suppress(RuntimeError):
            torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            torch.library.define("torchvision::qnms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


@torch.no_grad()
def stir(model: nn.Module) -> nn.Module:
    """Draw weights after He et al., and all scales, shifts and statistics, which begin at one or zero."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 2:
            parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
        elif parameter.ndim == 1 and parameter.is_floating_point():
            low = -0.1 if name.rpartition(".")[2] in ("bias", "beta") else 0.5
            parameter.uniform_(low, low + 0.2 if low < 0 else 1.0)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return model


def line(name: str, facts: dict[str, Any]) -> str:
    """Return one line of the table."""
    text = f"{name:45}"
    if "free" in facts:
        text += f" {facts['free']:6.1%} free, traced in {facts['trace_seconds']:5.1f} s"
    if "parity" in facts:
        share = facts["macs_after"] / facts["macs"]
        text += f", MACs {facts['macs'] / 1e6:7.1f} M to {share:.3f}"
        text += f", proof {facts['proof']:.0e}, file {facts['parity']:.0e}"
    return f"{text} {facts.get('error', '')}".rstrip()


def summary(rows: dict[str, dict[str, Any]]) -> str:
    """Return what the whole table says."""
    whole = [facts for facts in rows.values() if "error" not in facts]
    free = sorted(facts["free"] for facts in rows.values() if "free" in facts)
    middle = f"; {free[len(free) // 2]:.0%} free in the middle" if free else ""
    return f"{len(rows)} networks, {len(whole)} cut, proved and exported{middle}"


if __name__ == "__main__":
    main()
