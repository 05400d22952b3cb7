"""The Kubernetes manifest, as far as it can be checked without a cluster: it says what Afterglow understands."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from streams.commands import COMMANDS
from streams.commands.retrain import command as retrain
from streams.metrics import LOOP_SECONDS
from streams.settings import load

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
CONFIG, WORKERS, STATISTICS = list(yaml.safe_load_all((FOLDER / "afterglow.yaml").read_text()))
CLAIM, RETRAIN = list(yaml.safe_load_all((FOLDER / "retrain.yaml").read_text()))
PATCH: dict[str, Any] = yaml.safe_load((FOLDER / "retrain-encoder.yaml").read_text())["spec"]["template"]["spec"]
POD: dict[str, Any] = WORKERS["spec"]["template"]["spec"]
STATISTICS_POD: dict[str, Any] = STATISTICS["spec"]["template"]["spec"]
RETRAIN_POD: dict[str, Any] = RETRAIN["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_its_environment_is_of_settings_that_exist() -> None:
    settings = load(environment=CONFIG["data"])
    assert settings.qdrant.address == "qdrant:6334"
    mounts = {mount["name"]: mount["mountPath"] for mount in POD["containers"][1]["volumeMounts"]}
    assert settings.secret_file == Path(mounts["secret"]) / "secret"
    for container in (*POD["containers"], *STATISTICS_POD["containers"], *RETRAIN_POD["containers"]):
        assert container["envFrom"] == [{"configMapRef": {"name": CONFIG["metadata"]["name"]}}]


def test_encoder_and_worker_share_a_socket_and_run_commands_that_exist() -> None:
    volumes = {volume["name"] for volume in POD["volumes"]}
    assert [container["args"] for container in POD["containers"]] == [["encoder", "--follow"], ["worker"]]
    assert {"encoder", "worker"} <= set(COMMANDS)
    for container in POD["containers"]:
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["socket"] == "/run/afterglow"
        assert set(mounts) <= volumes


def test_a_worker_is_asked_for_its_health_where_it_tells_of_it() -> None:
    """It answers 503 after LOOP_SECONDS, so the probe must wait for longer."""
    worker = POD["containers"][1]
    (port,) = worker["ports"]
    assert port == {"name": "metrics", "containerPort": load(environment=CONFIG["data"]).worker.metrics_port}
    for probe in (worker["startupProbe"], worker["livenessProbe"]):
        assert probe["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert worker["livenessProbe"]["timeoutSeconds"] > LOOP_SECONDS


def test_statistics_are_kept_by_one_process_whose_successor_waits_for_its_end() -> None:
    assert STATISTICS["spec"]["replicas"] == 1
    assert STATISTICS["spec"]["strategy"] == {"type": "Recreate"}
    (container,) = STATISTICS_POD["containers"]
    assert container["args"] == ["statistics"]
    assert "statistics" in COMMANDS
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"secret": str(load(environment=CONFIG["data"]).secret_file.parent)}


def test_a_deployment_has_its_own_pods_and_nobody_else_s() -> None:
    chosen = [deployment["spec"]["selector"]["matchLabels"] for deployment in (WORKERS, STATISTICS)]
    assert chosen[0] != chosen[1]
    assert chosen == [deployment["spec"]["template"]["metadata"]["labels"] for deployment in (WORKERS, STATISTICS)]


def test_one_retraining_at_a_time_by_a_command_that_exists_which_killed_goes_on() -> None:
    assert RETRAIN["spec"]["concurrencyPolicy"] == "Forbid"
    assert RETRAIN_POD["restartPolicy"] == "OnFailure"
    (container,) = RETRAIN_POD["containers"]
    command, option = container["args"]
    assert command in COMMANDS
    assert option in {name for parameter in retrain.params for name in parameter.opts}


def test_models_are_made_where_encoders_find_them_by_the_path_that_a_generation_records() -> None:
    image = (FOLDER.parent / "Dockerfile").read_text()
    assert "AFTERGLOW_DATA_DIR=/var/lib/afterglow" in image
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    (made,) = [mount for mount in RETRAIN_POD["containers"][0]["volumeMounts"] if mount["name"] == "models"]
    (encoder,) = PATCH["containers"]
    (read,) = encoder["volumeMounts"]
    assert encoder["name"] in {container["name"] for container in POD["containers"]}
    assert made["mountPath"] == read["mountPath"] == "/var/lib/afterglow/models"
    assert read["readOnly"] is True
    for pod in (RETRAIN_POD, PATCH):
        (models,) = [volume for volume in pod["volumes"] if volume["name"] == "models"]
        assert models["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]


@pytest.mark.parametrize("pod", [POD, STATISTICS_POD, RETRAIN_POD], ids=["workers", "statistics", "retrain"])
def test_the_secret_is_readable_by_the_user_and_nobody_else(pod: dict[str, Any]) -> None:
    (secret,) = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secret"]
    assert secret["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
