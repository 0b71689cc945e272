"""What MLflow keeps of a real run, read back from its store."""

import logging
import warnings
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'penjing[mlflow]'")

# What MLflow warns of in its own libraries is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def read_back(uri):
    from mlflow import MlflowClient

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("penjing")
        return client, client.search_runs([experiment.experiment_id])


@pytest.fixture(autouse=True)
def no_address_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_a_run_that_went_on_is_one_run_with_each_thing_once(stopped_once, tmp_path):
    levels = [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    result = stopped_once(tmp_path / "run", "mlflow")
    assert levels == [logging.getLogger(name).level for name in ("mlflow", "alembic")]
    client, (run,) = read_back(f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    assert run.info.status == "FINISHED" and run.info.run_name == "run"
    for name in ("train/loss", "val/accuracy"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == [1, 2, 3, 4]
    history = client.get_metric_history(run.info.run_id, "val/accuracy")
    assert [one.value for one in history] == [row["val_accuracy"] for row in result.results["training"]]
    assert run.data.metrics["penjing/macs"] == result.results["rows"][1]["macs"]
    assert run.data.metrics["budget/macs/met"] == 1.0
    assert run.data.params["budget.macs"] == "0.6x" and run.data.params["steps.02.train.epochs"] == "2"
    kept = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert kept == {"model.onnx", "report.html", "results.json"}
    copy = client.download_artifacts(run.info.run_id, "model.onnx", str(tmp_path))
    assert Path(copy).read_bytes() == (tmp_path / "run" / "model.onnx").read_bytes()


def test_the_address_in_the_environment_is_where_runs_go(stopped_once, tmp_path, monkeypatch):
    place = tmp_path / "elsewhere"
    place.mkdir()
    uri = f"sqlite:///{place / 'all.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(place)  # where MLflow puts artefacts unless it is told otherwise
    stopped_once(tmp_path / "run", "mlflow")
    _, (run,) = read_back(uri)
    assert run.info.status == "FINISHED"
    assert not (tmp_path / "run" / "mlflow").exists()
