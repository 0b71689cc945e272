"""Bundles: what goes in comes out, and nothing else gets in."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nets.hostile import HOSTILE
from penjing import zoo
from penjing.core.errors import BundleError
from penjing.core.plan import Entry, Plan
from penjing.exporting.bundle import MANIFEST, WEIGHTS, load, plans_of, read_manifest, sealed, write
from penjing.graph import form
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace

X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
BUILDER = "penjing.zoo.resnet:resnet20"


@pytest.fixture(scope="module")
def small():
    model = plain(zoo.resnet20())
    graph = trace(model, (X,), proof=False)
    plan = Plan.of("channels", {s.name: range(s.size // 2) for s in graph.sites}, graph.sites)
    cut(model, graph, plan.of_rewrite("channels"))
    return model, plan


@pytest.fixture
def folder(small, tmp_path):
    model, plan = small
    return write(
        tmp_path / "model.penjing", model, builder=BUILDER, plans=[plan], inputs=[[3, 32, 32]], facts={"macs": 1.5}
    )


def change(folder: Path, **entries: object) -> Path:
    """Change the manifest, and its checksum with it, as an attacker would."""
    (folder / MANIFEST).write_bytes(sealed(json.loads((folder / MANIFEST).read_text()) | entries))
    return folder


def sign(folder: Path) -> Path:
    """Make the manifest agree with the weights."""
    import hashlib

    return change(folder, weights=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def test_a_bundle_gives_the_network_back(small, folder):
    model, plan = small
    again = load(folder)
    assert not again.training and form.same(form.tensors(model), form.tensors(again))
    with torch.no_grad():
        assert torch.equal(again(X), model(X))
    assert again.layer1[0].conv1.out_channels == 8 and all(not p.is_meta for p in again.parameters())
    manifest = read_manifest(folder)
    assert (manifest.network, manifest.inputs, manifest.facts) == ("CifarResNet", [[3, 32, 32]], {"macs": 1.5})
    assert [one.key for one in plans_of(folder)] == [plan.key]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model.penjing"]


def test_long_choices_are_kept_as_bits(small, tmp_path):
    model, plan = small
    rng = np.random.default_rng(0)
    weights = Plan((Entry("weights", "conv1.weight", np.sort(rng.permutation(100_000)[:30_000]), 100_000),))
    folder = write(tmp_path / "sparse", model, builder=BUILDER, plans=[plan, weights])
    assert [one.key for one in plans_of(folder)] == [plan.key, weights.key]
    assert (folder / MANIFEST).stat().st_size < 20_000
    assert form.same(form.tensors(load(folder)), form.tensors(model))
    lineage = json.loads((folder / MANIFEST).read_text())["lineage"]
    lineage[1][0]["kept"] = "conv1.weight"
    with pytest.raises(BundleError, match=r"has no choice 'conv1.weight' among its tensors"):
        plans_of(change(folder, lineage=lineage))


def test_it_trains_on_and_is_cut_again(folder):
    model = load(folder)
    model.train()(X).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert trace(model.eval(), (X,)).sites


def test_a_second_bundle_takes_the_place_of_the_first(small, folder):
    write(folder, zoo.resnet20(), builder=BUILDER)
    assert load(folder).layer1[0].conv1.out_channels == 16
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model.penjing"]


def test_a_builder_that_needs_numbers_gets_them(tmp_path):
    model = zoo.digits_net(pretrained=True)
    folder = write(tmp_path / "digits", model, builder="penjing.zoo.digits:trained")
    assert form.same(form.tensors(load(folder)), form.tensors(model))


@pytest.mark.parametrize("name", ["same_parameter_in_two_modules", "transposed_weight_tying", "weight_norm"])
def test_networks_that_share_or_compute_weights(name, tmp_path):
    model = plain(HOSTILE[name].build())
    folder = write(tmp_path / name, model)
    again = load(folder, HOSTILE[name].build)
    assert form.same(form.tensors(model), form.tensors(again))


# -------------------------------------------------------------------------------------------------------- attacks


def test_a_strangers_builder_is_not_imported(folder, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("import pathlib\npathlib.Path('harm').touch()\n")
    monkeypatch.chdir(tmp_path)
    change(folder, builder="stranger:build")
    with pytest.raises(BundleError, match=r"names the builder stranger:build, and importing it runs its code"):
        load(folder)
    assert not (tmp_path / "harm").exists()
    assert load(folder, zoo.resnet20) is not None
    with pytest.raises(BundleError, match="has no builder 'build'"):
        load(folder, trust=True)
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize("builder", ["penjing.zoo.resnet", "penjing.cli:main", "penjing.zoo.os:system", ""])
def test_a_name_that_is_no_builder(folder, builder):
    with pytest.raises(BundleError):
        load(change(folder, builder=builder))


@pytest.mark.parametrize(
    "builder",
    ["penjing.zoo.weights:build(spec='stranger:build')", "penjing.zoo.weights:call_named(spec='stranger:build')"],
)
def test_arguments_lead_to_no_strangers_builder(folder, tmp_path, monkeypatch, builder):
    (tmp_path / "stranger.py").write_text("import pathlib\npathlib.Path('harm').touch()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"importing it runs its code"):
        load(change(folder, builder=builder))
    assert not (tmp_path / "harm").exists()


def test_arguments_of_the_builder_are_kept(tmp_path):
    model = zoo.resnet20(num_classes=7, shortcut="B").eval()
    place = write(tmp_path / "b", model, builder=zoo.builder_of("resnet20(num_classes=7, shortcut='B')"))
    assert form.same(form.tensors(model), form.tensors(load(place)))
    with pytest.raises(BundleError, match=r"resnet20 has no argument 'depth': it takes num_classes"):
        load(change(place, builder="penjing.zoo.resnet:resnet20(depth=3)"))


def test_tampered_weights_are_refused(folder):
    packed = bytearray((folder / WEIGHTS).read_bytes())
    packed[-1] ^= 1
    (folder / WEIGHTS).write_bytes(packed)
    with pytest.raises(BundleError, match="their checksums differ"):
        load(folder)
    load(sign(folder))


@pytest.mark.parametrize(
    "head",
    [
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        b"",
        b"\x80\x04}q\x00.",
        struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}'.ljust(64) + b"\0" * 4,
    ],
)
def test_headers_that_lie_are_refused(folder, head):
    (folder / WEIGHTS).write_bytes(head)
    with pytest.raises(BundleError, match="is no sound safetensors file"):
        load(sign(folder))


def test_weights_of_another_network_are_refused(folder):
    tensors = load_file(folder / WEIGHTS)
    first = "conv1.weight"
    for wrong, words in (
        ({k: v for k, v in tensors.items() if k != first}, f"lack {first}"),
        (tensors | {"extra": torch.zeros(1)}, "have extra, which the network has not"),
        (tensors | {first: tensors[first].to(torch.int32)}, f"{first} is torch.float32 with"),
        (tensors | {first: tensors[first].flatten()}, "dimensions in the network, not"),
    ):
        save_file(wrong, folder / WEIGHTS)
        with pytest.raises(BundleError, match=words):
            load(sign(folder))


@pytest.mark.parametrize(
    "counts",
    [
        {"conv1": {"__class__": 1}},
        {"conv1": {"out_channels": "16"}},
        {"conv1": {"out_channels": True}},
        {"conv1": {"groups": 0}},
        {"conv1.weight": {"groups": 1}},
        {"nowhere": {"groups": 1}},
        {"bn1": {"out_channels": 3}},
    ],
)
def test_only_counts_are_set(folder, counts):
    with pytest.raises(BundleError, match="has no count"):
        load(change(folder, counts=counts))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no manifest"),
        ("[]", "no manifest"),
        ("{}", "no manifest"),
        ('{"bundle": 1}', "no manifest"),
        ('{"bundle": 2}', "bundle version 2"),
        ('{"bundle": 1, "bundle": 1}', "'bundle' is written twice"),
        ("[" * 200_000, "no manifest"),
        ('{"bundle": 1, "network": "a", "weights": "b", "surprise": 1}', "no manifest"),
        ('{"bundle": 1, "network": "a", "weights": 3}', "other kinds"),
        ('{"bundle": 1, "network": "a", "weights": "b", "counts": []}', "other kinds"),
        ('{"bundle": 1, "network": "a", "weights": "b", "counts": {"a": 1}}', "other kinds"),
        ('{"bundle": 1, "network": "a", "weights": "b", "inputs": [[null, 3]]}', "other kinds"),
        ('{"bundle": 1, "network": "a", "weights": "b", "inputs": [[3, 1000000000, 8]]}', "other kinds"),
        ("\udcff", "no manifest"),
    ],
)
def test_a_manifest_that_is_none(folder, text, words):
    (folder / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BundleError, match=words):
        load(folder)


def test_a_huge_manifest_is_not_read(folder):
    with (folder / MANIFEST).open("r+b") as file:
        file.truncate(10**9)  # a hole, which takes no space
    with pytest.raises(BundleError, match="more than 64,000,000 bytes"):
        load(folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_links_and_missing_files_are_refused(folder, tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    with pytest.raises(BundleError, match="is not there, or is a link"):
        load(folder)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(BundleError, match="is not there, or is a link"):
        load(folder)


def test_no_folder(tmp_path):
    with pytest.raises(BundleError, match=r"There is no bundle .*nothing; a bundle is a folder"):
        load(tmp_path / "nothing")


def test_a_file_in_the_way_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written: File exists"):
        write(tmp_path / "file" / "bundle", zoo.resnet20())


def test_a_bundle_of_before_there_were_exits_is_read(small, folder):
    facts = json.loads((folder / MANIFEST).read_text())
    del facts["exits"]
    (folder / MANIFEST).write_bytes(sealed(facts))
    assert not read_manifest(folder).exits
