"""Changes of layout are put down to the operator that wants them, and never to layers that only come next."""

from penjing.exporting.runtimes.subject import LayerTime
from penjing.steps import between


def rows(*told: tuple[str, str, float]) -> list[LayerTime]:
    return [LayerTime(name, operator, "", ms, 0.0) for name, operator, ms in told]


def test_an_operator_off_the_fast_path_is_named_with_all_it_causes() -> None:
    profile = rows(
        ("conv1", "Conv", 1.0),
        ("after conv1", "ReorderOutput", 0.1),
        ("after conv1", "Slice", 0.2),
        ("after conv1", "Relu", 0.1),
        ("after conv1", "ReorderInput", 0.1),
        ("conv2", "Conv", 1.0),
        ("after conv2", "ReorderOutput", 0.1),
        ("after conv2", "Add", 0.1),
        ("after conv2", "ReorderInput", 0.1),
        ("conv3", "Conv", 1.0),
    )
    (found,) = between.find(profile, 2.0, "onnxruntime")
    assert (found.where, found.cause) == ("Slice", "fallback operator")
    assert "after conv1 it is off the fast path: onnxruntime changes the layout 4 times" in found.detail
    assert found.brings == 2.0 * 0.4
    assert between.find(profile, 2.0, "onnxruntime", {"conv1", "conv2"})[0].brings == 2.0 * 0.2


def test_borders_and_little_times_are_nothing() -> None:
    profile = rows(("input", "ReorderInput", 0.5), ("conv", "Conv", 1.0), ("after conv", "ReorderOutput", 0.5))
    assert between.find(profile, 1.0, "onnxruntime") == []
    little = rows(("conv", "Conv", 1.0), ("after conv", "ReorderOutput", 0.001), ("after conv", "Slice", 0.001))
    assert between.find(little, 1.0, "onnxruntime") == []


def test_quantize_nodes() -> None:
    profile = rows(("a", "QuantizeLinear", 0.5), ("conv", "QLinearConv", 1.0), ("after conv", "DequantizeLinear", 0.5))
    (found,) = between.find(profile, 1.0, "onnxruntime")
    assert found.cause == "quantize nodes" and found.brings == 1.0 and found.detail.startswith("2 of them")


def test_what_rounds_inputs_of_few_bits_is_no_operator_to_be_rewritten() -> None:
    profile = rows(
        ("conv1", "Conv", 1.0),
        ("after conv1", "ReorderOutput", 0.1),
        ("after conv1", "Div", 0.2),
        ("after conv1", "ReorderInput", 0.1),
        ("conv2", "Conv", 1.0),
    )
    (found,) = between.find(profile, 1.0, "onnxruntime", rounded=True)
    assert (found.where, found.cause) == ("Div", "size only")
    assert "int8" in found.remedy and "penjing.load" in found.remedy and "write it with" not in found.remedy
    (other,) = between.find(profile, 1.0, "onnxruntime")
    assert other.cause == "fallback operator"
