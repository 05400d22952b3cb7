import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.data_directory import AlreadyRunning, DataDirectory, ensure_secret


def test_a_second_up_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    hold = """
import sys, pathlib
from deploy.data_directory import DataDirectory
with DataDirectory(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"), DataDirectory(tmp_path).locked():
        pass
    holder.kill()
    holder.communicate()
    with DataDirectory(tmp_path).locked():
        assert (tmp_path / "lock").read_text() != f"{holder.pid}\n"


def test_the_directory_is_its_owners_alone(tmp_path: Path) -> None:
    DataDirectory(tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_the_secret_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "data" / "secret"
    ensure_secret(file)
    secret = file.read_text()
    assert len(bytes.fromhex(secret)) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ensure_secret(file)
    assert file.read_text() == secret
    assert [one.name for one in file.parent.iterdir()] == ["secret"]
    ensure_secret(tmp_path / "other")
    assert (tmp_path / "other").read_text() != secret


def test_a_socket_s_path_is_short_enough_for_the_kernel(tmp_path: Path) -> None:
    deep = DataDirectory(tmp_path / ("d" * 120))
    path = Path(deep.encoder_address().removeprefix("unix://"))
    assert len(str(path)) <= 100
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert deep.encoder_address() == DataDirectory(tmp_path / ("d" * 120)).encoder_address()
    path.parent.rmdir()
    near = DataDirectory(Path("/tmp"))
    assert near.encoder_address() == "unix:///tmp/encoder.sock"
