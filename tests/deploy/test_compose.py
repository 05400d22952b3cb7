"""The compose file, as far as it can be checked without a Docker engine: it says what Afterglow understands."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from streams.commands import COMMANDS
from streams.commands.retrain import Interval, command
from streams.settings import load

FOLDER = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if service["image"] == "afterglow")


def test_workers_are_two_and_share_the_encoder_s_socket() -> None:
    assert OURS == ["encoder", "retrain", "secret", "statistics", "worker"]
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert "socket:/run/afterglow" in SERVICES["worker"]["volumes"]
    assert "socket:/run/afterglow" in SERVICES["encoder"]["volumes"]
    image = (FOLDER / "Dockerfile").read_text()
    assert "AFTERGLOW_ENCODER_ADDRESS=unix:///run/afterglow/encoder.sock" in image


@pytest.mark.parametrize("name", OURS)
def test_its_environment_is_of_settings_that_exist(name: str, tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path, environment=SERVICES[name]["environment"])
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert settings.qdrant.address == "qdrant:6334"


@pytest.mark.parametrize("name", ["encoder", "worker", "statistics", "retrain"])
def test_it_runs_a_command_that_exists(name: str) -> None:
    assert SERVICES[name]["command"][0] in COMMANDS


def test_the_encoder_follows_the_generation_that_readers_see() -> None:
    assert SERVICES["encoder"]["command"] == ["encoder", "--follow"]


def test_statistics_are_kept_by_one_that_has_the_secret_and_needs_no_encoder() -> None:
    statistics = SERVICES["statistics"]
    assert "deploy" not in statistics
    assert statistics["volumes"] == ["state:/var/lib/afterglow"]
    assert set(statistics["depends_on"]) == {"kafka", "qdrant", "secret"}


def test_retraining_is_to_be_asked_for_and_leaves_models_where_the_encoder_finds_them() -> None:
    retrain = SERVICES["retrain"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["retrain"]
    option, every = retrain["command"][1:]
    assert Interval().convert(every, None, None) == 7 * 86_400
    assert option in command.params[0].opts
    assert retrain["volumes"] == ["state:/var/lib/afterglow"]
    assert "state:/var/lib/afterglow" in SERVICES["encoder"]["volumes"]


def test_what_is_waited_for_exists_and_can_be_healthy() -> None:
    for service in SERVICES.values():
        for awaited, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[awaited]
            else:
                assert wanted == {"condition": "service_completed_successfully"}
                assert SERVICES[awaited]["restart"] == "no"


def test_every_named_volume_is_declared() -> None:
    used = {mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_the_secret_is_made_where_workers_look_for_it() -> None:
    image = (FOLDER / "Dockerfile").read_text()
    assert "AFTERGLOW_DATA_DIR=/var/lib/afterglow" in image
    (program,) = SERVICES["secret"]["command"]
    compile(program, "compose.yaml", "exec")
    default = load(environment={"AFTERGLOW_DATA_DIR": "/var/lib/afterglow"}).secret_file
    assert f'"{default}"' in program
