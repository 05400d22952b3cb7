"""The command `up` itself: what it refuses, with which exit code, and how others find it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.data_directory import DataDirectory
from deploy.stack import Endpoints
from sinks.collections import Generation, Model
from streams.addresses import read_addresses
from streams.commands import main
from streams.commands.up import overruled_in_words, published, stack_of
from streams.rules import recorded_fold
from streams.settings import load


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that nothing listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[object, str]:
    """The exit code of `afterglow up`, and what it says on standard error."""
    with pytest.raises(SystemExit) as ended:
        main(["up", *options])
    return ended.value.code, " ".join(capsys.readouterr().err.split())


def test_no_workers_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--workers", "0")
    assert code == 2
    assert "--workers" in said


def test_an_address_without_a_port_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "--data-dir", str(tmp_path), "--kafka", "localhost")
    assert code == 2
    assert "expected host:port, got 'localhost'" in said


def test_an_address_where_nothing_listens_fails_by_name(
    tmp_path: Path, nowhere: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refused(capsys, "--data-dir", str(tmp_path), "--kafka", nowhere)
    assert code == 1
    assert f"Nothing listens at {nowhere}, the address given for Kafka" in said
    assert not (tmp_path / "addresses.json").exists()


def test_a_second_up_says_who_holds_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with DataDirectory(tmp_path).locked():
        code, said = refused(capsys, "--data-dir", str(tmp_path))
    assert code == 1
    assert f"in use by an `afterglow up` with pid {os.getpid()}" in said


def test_others_find_it_while_it_runs(tmp_path: Path) -> None:
    settings = load(data_dir=tmp_path)
    with published(settings, Endpoints("127.0.0.1:1", "127.0.0.1:2", "unix:///e")):
        found = load(data_dir=tmp_path)
        assert found.kafka.bootstrap_servers == "127.0.0.1:1"
        assert found.qdrant.address == "127.0.0.1:2"
        assert found.encoder.address == "unix:///e"
        assert found.secret_file == tmp_path / "secret"
    assert read_addresses(tmp_path) is None


def test_addresses_left_by_a_killed_up_are_not_taken_for_an_operators(tmp_path: Path) -> None:
    """Its pid may live again, as another process's: then the file looks like a running `up`'s."""
    with published(load(data_dir=tmp_path), Endpoints("127.0.0.1:1", "127.0.0.1:2", "unix:///e")):
        stack = stack_of(load(data_dir=tmp_path), workers=1, report=print)
    assert stack.endpoints == Endpoints("", "", f"unix://{tmp_path}/encoder.sock")


def test_an_address_from_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_QDRANT_ADDRESS", "qdrant.example:6334")
    stack = stack_of(load(data_dir=tmp_path), workers=1, report=print)
    assert stack.endpoints.qdrant == "qdrant.example:6334"
    assert stack.endpoints.kafka == ""


def test_settings_that_do_not_count_are_told_with_what_holds_and_what_to_do(tmp_path: Path) -> None:
    fold = {**recorded_fold(load(environment={}).profiles), "weight_search": 2.0}
    generation = Generation("g2", Model("all-MiniLM-L6-v2", "abc", 384), "fingerprint", fold, created_at_ms=1)
    given = {"profiles.half_life_long": "14d", "encoder.model": "/models/mine", "profiles.weight_click": "2.0"}
    assert overruled_in_words(load(data_dir=tmp_path, overrides=given, environment={}), generation) == [
        "profiles.half_life_long is 14d (from: command line), which does not count: generation g2 was made with 30d, "
        "and keeps that. Make one with 14d: `afterglow replay`",
        "encoder.model is /models/mine (from: command line), which does not count: generation g2 was made with "
        "all-MiniLM-L6-v2, and keeps that. Make one with /models/mine: `afterglow replay --model /models/mine`",
    ]
    assert overruled_in_words(load(data_dir=tmp_path, environment={}), generation) == []


def test_prefixes_that_do_not_count_are_told_too(tmp_path: Path) -> None:
    fold = recorded_fold(load(environment={}).profiles)
    model = Model("mine", "abc", 384, "/models/my own", query_prefix="query: ", product_prefix="")
    generation = Generation("g2", model, "fingerprint", fold, created_at_ms=1)
    given = {"encoder.query_prefix": "search: "}
    assert overruled_in_words(load(data_dir=tmp_path, overrides=given, environment={}), generation) == [
        "encoder.query_prefix is 'search: ' (from: command line), which does not count: generation g2 was made with "
        "'query: ', and keeps that. Make one with 'search: ': `afterglow replay --model '/models/my own'`",
    ]
