import torch
from torch import nn

from penjing.core.registry import build
from penjing.terms.zeros import hold_zeros


def sparse_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    with torch.no_grad():
        for layer in (net[0], net[4]):
            layer.weight[torch.rand_like(layer.weight) < 0.6] = 0
    return net


def train(net, term, steps=100):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x, y = torch.randn(8, 2, 4, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)
        out = net(x)
        loss = nn.functional.cross_entropy(out, y)
        if term is not None:
            loss = loss + term(x, out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if term is not None:
            term.after_step()


def test_zeros_survive_and_everything_else_moves():
    with torch.random.fork_rng([]):
        net = sparse_net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    term = build("term", "hold_zeros")
    assert term.attach(net) == []
    train(net, term)
    for name, p in net.named_parameters():
        if p.ndim >= 2:
            assert torch.equal(p == 0, before[name] == 0)
            assert (p != before[name])[before[name] != 0].all()
    # Biases start at zero in batch norm and are no part of the pattern.
    assert (before["1.bias"] == 0).all()
    assert (net[1].bias != 0).all()


def test_without_the_term_they_do_not_survive():
    with torch.random.fork_rng([]):
        net = sparse_net()
    zeros = int((net[0].weight == 0).sum())
    train(net, None, steps=2)
    assert int((net[0].weight == 0).sum()) < zeros


def test_adds_nothing_and_lets_go_after_detach():
    with torch.random.fork_rng([]):
        net = sparse_net()
    term = hold_zeros()
    term.attach(net)
    assert term(torch.ones(1), None, None).item() == 0
    term.detach()
    with torch.no_grad():
        net[0].weight.fill_(1)
    term.after_step()
    assert (net[0].weight == 1).all()


def test_a_gradient_that_is_not_finite_does_not_break_the_zeros():
    with torch.random.fork_rng([]):
        net = sparse_net()
    term = hold_zeros()
    term.attach(net)
    zero = net[0].weight == 0
    with torch.no_grad():
        net[0].weight.fill_(float("nan"))
    term.after_step()
    assert (net[0].weight[zero] == 0).all()


def test_options_are_values():
    assert hold_zeros() == hold_zeros()
    assert repr(hold_zeros()) == "hold_zeros()"
