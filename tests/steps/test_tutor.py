import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError, RecipeError, ResumeError
from penjing.data import load
from penjing.data.load import as_data
from penjing.recipe import parse
from penjing.resume import identity
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.steps.train import train
from penjing.terms.teacher import Teacher
from penjing.training.evaluate import evaluate
from penjing.training.follow import distance
from tiny import TinyNet, pictures, skilled, tiny

LESSON = train(epochs=4, lr=0.05, batch=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


class Other(nn.Module):
    """Another architecture than TinyNet, with layers of other names."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(12, classes)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


def test_a_network_of_another_kind_learns_from_its_teacher_alone(data, tmp_path):
    """Without labels in the loss, all that the student can know is what the teacher told it."""
    teacher, before = skilled(), {k: v.clone() for k, v in skilled().state_dict().items()}
    lesson = train(epochs=12, lr=0.05, batch=16, terms=({"soft_targets": {"weight": 1.0}},))
    result = penjing.run(Other(), data, [lesson], folder=tmp_path, teacher=teacher)
    told = result.results
    (facts,) = told["teacher"]
    assert facts["name"] == "TinyNet" and facts["validation"] == evaluate(teacher, data.val).accuracy
    assert told["validation"]["after"] > told["validation"]["before"] + 25
    assert any("TinyNet" in remark and "% right on validation" in remark for remark in told["remarks"])
    assert "The teacher was another network" in (tmp_path / "report.html").read_text()
    assert told["test_reads"] == len(told["rows"])  # the teacher reads no test picture
    assert all(torch.equal(before[k], v) for k, v in teacher.state_dict().items())


def test_by_default_a_teacher_of_another_kind_gives_no_hints(data, tmp_path, monkeypatch):
    lent = []
    monkeypatch.setattr(Teacher, "lend", lambda self, network: lent.append(network) or setattr(self, "_lent", network))
    start = State(tiny(), tiny().eval(), data, ((data.example(2),), {}))
    teacher = Other().eval()
    for tutor, views, names in [
        (None, 0, ["soft_targets", "hints"]),
        (teacher, 0, ["soft_targets"]),
        (None, 1, ["soft_targets"]),
    ]:
        lent.clear()
        state = State(start.model, start.original, data, start.example, tutor=tutor)
        book = Run(tmp_path)
        train(epochs=1, batch=64, views=views)(state, book)
        assert [term.partition("(")[0] for term in book.noted("trained")[0]["terms"]] == names
        assert lent and all(getattr(network, "network", network) is state.teacher for network in lent)
    assert list(tmp_path.glob("answers-*.npy"))


def broken(net):
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] = float("nan")
    return net


def test_who_cannot_teach_is_told_before_any_work(data):
    net = tiny()
    for model, teacher, steps, sentence in [
        (net, net, [LESSON], "The teacher is the model itself; leave it out"),
        (net, "resnet56", [LESSON], "The teacher is of type str; give a torch"),
        (net, Other(classes=5), [LESSON], r"The teacher, Other, tells 5 classes apart and the model 3; .*num_classes"),
        (net, Other(classes=2), [LESSON], "The teacher, Other, cannot teach on these pictures: The model has 2"),
        (net, broken(Other()), [LESSON], r"cannot teach on these pictures: body.0.weight of the model holds NaN"),
        (net, nn.Linear(4, 3), [LESSON], "The teacher, Linear, cannot teach on these pictures: "),
        (net, Other(), [prune(), "export"], "No step trains, so that a teacher has nobody to teach"),
    ]:
        with pytest.raises(PlanError, match=sentence) as caught:
            penjing.run(model, data, steps, "macs=0.9x", teacher=teacher)
        assert "\n" not in str(caught.value)
    with pytest.raises(PlanError, match="A teacher needs pictures"):
        penjing.run(net, None, [LESSON], example=torch.randn(2, 3, 8, 8), teacher=Other())
    with pytest.raises(RecipeError, match="teacher_weights fill a teacher; name the network with teacher"):
        parse({"model": "resnet20", "data": "digits", "steps": ["train"], "teacher_weights": "w.pt"}, "r.yaml")


def test_another_teacher_makes_another_run(data, tmp_path):
    def which(tutor):
        return identity(tiny(), data, [LESSON], {}, tutor)

    assert which(None) == identity(tiny(), data, [LESSON], {})
    assert which(skilled()) == which(skilled())
    assert len({str(which(one)) for one in (None, skilled(), tiny(), Other())}) == 4


def test_a_run_does_not_go_on_with_another_teacher(data, tmp_path, monkeypatch):
    def stop(self, state, run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            penjing.run(tiny(), data, [LESSON], folder=tmp_path, teacher=skilled())
    with pytest.raises(ResumeError, match="teacher"):
        penjing.run(tiny(), data, [LESSON], folder=tmp_path, teacher=Other())


def test_a_teacher_may_help_to_recover_from_a_cut(data, tmp_path):
    preview = penjing.preview(skilled(), data, budget="macs=0.7x", teacher=Other())
    assert len(preview.plan)
    result = penjing.compress(skilled(), data, "macs=0.7x", epochs=1, teacher=TinyNet(24), folder=tmp_path)
    assert result.results["trained"][-1]["terms"] == ["soft_targets(temperature=4.0, weight=0.9)"]


def test_without_classes_the_teacher_is_followed(data):
    x = next(data.train.batches(64))[0]
    student, teacher = Other(), skilled()
    result = penjing.run(student, x, [train(epochs=6, batch=16, lr=0.02)], teacher=teacher)
    after, before = (distance(m, teacher, as_data(x).val) for m in (result.model, student.eval()))
    assert after < before
    assert result.results["trained"][0]["terms"] == ["outputs(weight=1.0)"]
    with pytest.raises(PlanError, match=r"returns \[\[5\]\] for one picture and the model \[\[3\]\]"):
        penjing.run(student, x, [LESSON], teacher=Other(classes=5))
