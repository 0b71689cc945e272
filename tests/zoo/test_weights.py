import pickle
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from penjing import zoo
from penjing.core.errors import PenjingError, RecipeError
from penjing.zoo import build, builder_of, load_weights


class Net(nn.Module):
    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture
def trained():
    torch.manual_seed(1)
    net = Net()
    net.bn.running_mean.normal_()
    net.bn.num_batches_tracked.fill_(7)
    return net


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_a_state_dict_round_trips(tmp_path, trained, suffix):
    path = tmp_path / f"net{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained.state_dict(), path)
    net = Net()
    assert not same(net, trained)
    assert load_weights(net, str(path)) is net
    assert same(net, trained)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_checkpoint_of_a_parallel_model_is_unwrapped(tmp_path, trained, wrapper):
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "net.pt")
    net = load_weights(Net(), tmp_path / "net.pt")
    assert same(net, trained)


def test_the_networks_own_module_prefix_stays(tmp_path, trained):
    wrapped = nn.DataParallel(Net())
    torch.save({f"module.{key}": value for key, value in trained.state_dict().items()}, tmp_path / "net.pt")
    load_weights(wrapped, tmp_path / "net.pt")
    assert same(wrapped.module, trained)


def test_float16_is_cast_to_the_networks_type(tmp_path, trained):
    save_file(trained.half().state_dict(), tmp_path / "net.safetensors")
    net = load_weights(Net(), tmp_path / "net.safetensors")
    assert net.conv.weight.dtype == torch.float32
    assert torch.equal(net.conv.weight, trained.conv.weight.float())
    double = load_weights(Net().double(), tmp_path / "net.safetensors")
    assert double.linear.weight.dtype == torch.float64
    assert double.bn.num_batches_tracked.dtype == torch.int64


def test_files_older_than_the_batch_counter_load(tmp_path, trained):
    state = {key: value for key, value in trained.state_dict().items() if "tracked" not in key}
    save_file(state, tmp_path / "net.safetensors")
    net = load_weights(Net(), tmp_path / "net.safetensors")
    assert torch.equal(net.bn.running_mean, trained.bn.running_mean)
    assert net.bn.num_batches_tracked == 0


def change(state, key, value=None):
    if value is None:
        del state[key]
    else:
        state[key] = value


BROKEN = [
    (lambda s: change(s, "conv.bias"), r"it lacks 1 tensor \(conv\.bias\) of the network;"),
    (
        lambda s: [change(s, k) for k in list(s) if k.startswith("bn.") or k == "linear.bias"],
        r"it lacks 5 tensors \(bn\.weight, bn\.bias, bn\.running_mean, \.\.\.\) of the network;",
    ),
    (lambda s: change(s, "head.bias", torch.zeros(2)), r"it has 1 tensor \(head\.bias\) unknown to the network"),
    (lambda s: change(s, "linear.weight", torch.zeros(10, 4)), r"linear\.weight is \[10, 4\] .* \[3, 4\] in the net"),
    (lambda s: change(s, "conv.bias", torch.zeros(4, dtype=torch.int8)), r"conv\.bias is torch\.int8"),
    (
        lambda s: change(s, "conv.bias", torch.tensor([0, 1, float("nan"), 0])),
        r"holds NaN or infinity in 1 tensor \(conv\.bias\)",
    ),
    (
        lambda s: change(s, "bn.running_var", torch.full((4,), float("inf"))),
        r"holds NaN or infinity in 1 tensor \(bn\.running_var\)",
    ),
]


@pytest.mark.parametrize(("spoil", "sentence"), BROKEN)
def test_what_does_not_fit_is_named_and_leaves_the_network_alone(tmp_path, trained, spoil, sentence):
    state = dict(trained.state_dict())
    spoil(state)
    save_file(state, tmp_path / "net.safetensors")
    torch.manual_seed(2)
    net, before = Net(), Net()
    before.load_state_dict(net.state_dict())
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_weights(net, tmp_path / "net.safetensors")
    assert "net.safetensors" in str(caught.value)
    assert same(net, before)


def test_a_value_that_overflows_the_networks_type_is_named(tmp_path, trained):
    trained.linear.weight.data[0, 0] = 1e6
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(RecipeError, match=r"holds NaN or infinity in 1 tensor \(linear\.weight\)"):
        load_weights(Net().half(), tmp_path / "net.safetensors")


def test_the_weights_of_another_builder_are_recognised(tmp_path):
    save_file(zoo.resnet32().state_dict(), tmp_path / "r32.safetensors")
    with pytest.raises(
        RecipeError, match=r"does not fit CifarResNet: it has 72 tensors .*use the builder these weights"
    ):
        build("resnet20", tmp_path / "r32.safetensors")


class Spy:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"conv.weight": Spy(trace)}, tmp_path / "net.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv.weight": Spy(trace)}, protocol=2))
    for name in ("net.pt", "plain.pth"):
        with pytest.raises(RecipeError, match=rf"{name} is refused because it holds .* can run code"):
            load_weights(Net(), tmp_path / name)
    assert not trace.exists()


def test_a_whole_saved_module_is_refused(tmp_path, trained):
    torch.save(trained, tmp_path / "net.pt")
    with pytest.raises(RecipeError, match=r"Python objects \(.*Net\).* save model\.state_dict\(\)"):
        load_weights(Net(), tmp_path / "net.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", bytes(range(256)) * 8])
def test_a_damaged_file_is_one_sentence(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=rf"net\{suffix} is (not a sound|refused)") as caught:
        load_weights(Net(), path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_one_sentence(tmp_path, trained):
    for name, save in (("net.safetensors", save_file), ("net.pt", torch.save)):
        save(trained.state_dict(), tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(RecipeError, match="is not a sound"):
            load_weights(Net(), tmp_path / name)


def test_files_under_the_other_formats_name_say_how_to_rename_them(tmp_path, trained):
    save_file(trained.state_dict(), tmp_path / "net.pt")
    with pytest.raises(RecipeError, match=r"net\.pt looks like safetensors inside; rename it to net\.safetensors\.$"):
        load_weights(Net(), tmp_path / "net.pt")
    for zipped in (True, False):
        torch.save(trained.state_dict(), tmp_path / "net.safetensors", _use_new_zipfile_serialization=zipped)
        with pytest.raises(RecipeError, match=r"net\.safetensors looks like a PyTorch file .* rename it to net\.pt\.$"):
            load_weights(Net(), tmp_path / "net.safetensors")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "net.pt").read_bytes()[:20])
    with pytest.raises(RecipeError, match=r"cut\.pt is (not a sound|refused)"):
        load_weights(Net(), tmp_path / "cut.pt")


def test_absent_and_foreign_files(tmp_path):
    with pytest.raises(RecipeError, match=r"no weights file .*absent\.pt"):
        load_weights(Net(), tmp_path / "absent.pt")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(RecipeError, match=r"net\.onnx is not a weights file penjing reads: give one of \.safetensors"):
        load_weights(Net(), tmp_path / "net.onnx")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(RecipeError, match="no weights file"):
        load_weights(Net(), tmp_path / "folder.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RecipeError, match=r"list\.pt holds list"):
        load_weights(Net(), tmp_path / "list.pt")
    torch.save({"epoch": 3, "weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(RecipeError, match=r"other\.pt holds more than tensors \(epoch\); save model\.state_dict"):
        load_weights(Net(), tmp_path / "other.pt")


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_nets").mkdir()
    (tmp_path / "my_nets/__init__.py").write_text("")
    (tmp_path / "my_nets/small.py").write_text(
        textwrap.dedent(
            """
            from torch import nn
            from penjing.core.errors import BudgetError

            class Small(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.linear = nn.Linear(2, 2)

            def small():
                return Small()

            def wrong():
                return 3

            def failing():
                raise ValueError("width 7 is odd\\nand more")

            def ours():
                raise BudgetError("our own sentence")

            def sized(width):
                return nn.Linear(width, width)

            number = 3
            """
        )
    )
    (tmp_path / "my_nets/needy.py").write_text("import surely_not_installed")
    (tmp_path / "my_nets/broken.py").write_text("def f(:")
    (tmp_path / "my_nets/script.py").write_text("import sys; sys.exit(2)")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("my_nets")]:
        del sys.modules[name]


@pytest.mark.usefixtures("module")
def test_build_takes_functions_classes_and_zoo_names():
    assert type(build("my_nets.small:small")).__name__ == "Small"
    assert type(build("my_nets.small:Small")).__name__ == "Small"
    assert type(build("resnet20")) is type(build("penjing.zoo:resnet20"))


@pytest.mark.usefixtures("module")
def test_build_passes_arguments():
    assert build("resnet20(num_classes=100)").linear.out_features == 100
    assert build("my_nets.small:sized(width=3)").in_features == 3
    assert builder_of(" resnet20 ( num_classes = 7, shortcut='B', ) ") == (
        "penjing.zoo.resnet:resnet20(num_classes=7, shortcut='B')"
    )


@pytest.mark.usefixtures("module")
def test_build_fills_the_network(tmp_path):
    save_file({"linear.weight": torch.eye(2), "linear.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    net = build("my_nets.small:small", tmp_path / "w.safetensors")
    assert torch.equal(net.linear.weight, torch.eye(2))


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("resnet65", "no network 'resnet65' in the zoo. Did you mean 'resnet56'"),
        ("build", "no network 'build' in the zoo"),
        ("my_nests.small:small", "no module 'my_nests'"),
        ("my_nets.smal:small", r"no module 'my_nets\.smal'"),
        ("my_nets.small:smal", r"my_nets\.small has no builder 'smal'. Did you mean 'small'"),
        ("my_nets.small:number", "is int, which cannot be called"),
        ("resnet56(classes=3)", r"resnet56 has no argument 'classes': it takes num_classes, .*shortcut"),
        ("resnet56(num_classes='ten')", "resnet56: num_classes = 'ten' is not right"),
        ("resnet56(num_classes=-1)", r"resnet56\(num_classes=-1\) failed with RuntimeError"),
        ("resnet65(num_classes=3)", "no network 'resnet65' in the zoo. Did you mean 'resnet56'"),
        ("my_nets.small:small(a=1)", "my_nets.small:small has no argument 'a': it takes none"),
        ("my_nets.small:wrong", "returned int; a builder returns a torch.nn.Module"),
        ("my_nets.small:failing", r"failed with ValueError: width 7 is odd\.$"),
        (
            "my_nets.small:sized",
            r"cannot be called without 'width': write my_nets.small:sized\(width=\.\.\.\); it takes width",
        ),
        ("my_nets.needy:net", "cannot be imported: it needs 'surely_not_installed'"),
        ("my_nets.broken:net", "my_nets.broken cannot be imported: SyntaxError"),
        ("my_nets.script:net", "my_nets.script cannot be imported: SystemExit"),
        ("nets/small.py:net", "not of the form package.module:builder"),
        (":net", "not of the form package.module:builder"),
        ("my_nets.small:", "not of the form package.module:builder"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(spec, sentence):
    with pytest.raises(RecipeError, match=sentence) as caught:
        build(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("module")
def test_a_builders_own_penjing_error_passes_unchanged():
    with pytest.raises(PenjingError, match=r"^our own sentence$"):
        build("my_nets.small:ours")


def test_several_faults_of_names_are_told_together(tmp_path, trained):
    state = {"fc.bias" if key == "linear.bias" else key: value for key, value in trained.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    sentence = (
        r"it lacks 1 tensor \(linear\.bias\) of the network and has 1 tensor \(fc\.bias\) unknown to the network;"
    )
    with pytest.raises(RecipeError, match=sentence):
        load_weights(Net(), tmp_path / "net.pt")
