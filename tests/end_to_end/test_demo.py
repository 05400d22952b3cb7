"""`afterglow demo` as a stranger runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.end_to_end


def test_it_ends_by_itself_with_every_event_in_its_profile(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streams", "demo", "--json", "--shoppers", "12"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Its temporary directory is made here, so that what it leaves behind is seen.
        env={**os.environ, "AFTERGLOW_ENCODER_THREADS": "1", "TMPDIR": str(tmp_path)},
    )
    try:
        output, told = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, told.decode()
    summary = json.loads(output)
    assert summary["sent"] == summary["folded"] > 500
    assert summary["missing"] == []
    assert summary["refused"] == 0
    assert summary["profiles"] == 12
    assert summary["products"] == 400
    assert summary["freshness_probes"] > 0
    mira = next(told for told in summary["shoppers"] if told["user_id"] == "mira")
    before, after = mira["departments"]
    assert before["Camping"] > 0.5
    assert "Baking" not in before or before["Baking"] < 0.1
    assert after["Baking"] > after["Camping"], "the new interest outweighs the one that was dropped"
    assert all(mira["recommended"])
    assert b"Traceback" not in told
    assert list(tmp_path.iterdir()) == [], "its temporary directory is gone"
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(one.info["cmdline"] or [])]
