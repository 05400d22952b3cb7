import socket
from pathlib import Path

import pytest

from deploy.ports import PortTaken, is_free, kept_ports


def test_ports_are_chosen_once(tmp_path: Path) -> None:
    file = tmp_path / "kafka" / "ports.json"
    chosen = kept_ports(file, ["broker", "controller"])
    assert set(chosen) == {"broker", "controller"}
    assert chosen["broker"] != chosen["controller"]
    assert kept_ports(file, ["broker", "controller"]) == chosen


def test_a_kept_port_that_is_taken_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    port = kept_ports(file, ["broker"])["broker"]
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert not is_free(port)
        with pytest.raises(PortTaken, match=f"Port {port} .*{file}"):
            kept_ports(file, ["broker"])
    assert is_free(port)
