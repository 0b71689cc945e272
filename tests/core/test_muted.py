"""What C prints is dropped inside the block, also what it buffers, and nothing else."""

import subprocess
import sys

CODE = """
import ctypes
from penjing.core.muted import stdout_muted
libc = ctypes.CDLL(None)
print("before")
libc.printf(b"c before\\n")
with stdout_muted():
    libc.printf(b"c inside\\n")
    print("inside", flush=True)
print("after")
libc.fflush(None)
"""


def test_what_c_prints_inside_is_dropped() -> None:
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert sorted(found.stdout.split("\n")) == ["", "after", "before", "c before"]


def test_a_process_without_standard_output_is_left_alone() -> None:
    code = "import os; os.close(1)\nfrom penjing.core.muted import stdout_muted\nwith stdout_muted(): pass"
    subprocess.run([sys.executable, "-c", code], check=True)
