import pytest

import penjing
from penjing.graph import form
from penjing.steps.prune import prune
from penjing.steps.train import train
from tiny import pictures, tiny

FIT = train(epochs=2, lr=0.02, batch=16)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def stopped_once(data, monkeypatch):
    """Run with a tracker, die after the first epoch of the second training, and go on."""

    def run(place, track):
        steps = [prune(criterion="l1"), FIT, FIT, "export", "check"]

        def again():
            return penjing.run(tiny(), data, steps, "macs=0.6x", folder=place, track=track)

        honest, seen = train._tell, []

        def tell(self, row, run):
            honest(self, row, run)
            seen.append(row)
            if len(seen) == 3:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(train, "_tell", tell)
            with pytest.raises(Killed):
                again()
        told = again()
        untold = penjing.run(tiny(), data, steps, "macs=0.6x")
        assert form.same(form.tensors(told.model), form.tensors(untold.model)), "whoever listens changes no weight"
        return told

    return run
