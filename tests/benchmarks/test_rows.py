import json

import pytest

from penjing.core.errors import PlanError

from .loading import loaded


@pytest.fixture(scope="module")
def rows():
    return loaded("rows")


def test_a_row_is_made_once_and_a_failed_one_again(rows, tmp_path):
    made = []

    def work():
        made.append(len(made))
        if len(made) == 1:
            raise PlanError("no luck")
        return {"accuracy": 90.0}

    for want in ([0], [0, 1], [0, 1]):
        rows.fill(tmp_path, [("one", work)])
        assert made == want
        assert ("error" in json.loads((tmp_path / "one.json").read_text())) == (want == [0])
    rows.fill(tmp_path, [("two", work)], only="three")
    assert not (tmp_path / "two.json").exists()
