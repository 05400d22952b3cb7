"""What a stream of events leaves behind."""

import platform
import subprocess
import sys

import pytest

_FIFTY_REQUESTS = """
import resource
from streams.garbage import keep_freed_memory

keep_freed_memory()
bytes(2 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    bytes(2 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library isn't glibc")
def test_the_memory_of_one_request_is_taken_for_the_next() -> None:
    """Given back to the kernel in between, each would be mapped anew, 512 pages of it."""
    ran = subprocess.run([sys.executable, "-c", _FIFTY_REQUESTS], check=True, capture_output=True, text=True)
    assert int(ran.stdout) < 512
