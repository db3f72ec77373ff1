#!/usr/bin/env python3
"""Many VMs at once through one daemon, each with a file of its own, over all forms of the link."""

import os
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from daemon import Daemon, sha256  # noqa: E402

VMS = 100
FILE_BYTES = 200_000


class ManyVms(unittest.TestCase):
    def test_a_hundred_open_at_once_and_each_reads_its_own_bytes(self):
        daemon = Daemon().start()
        self.addCleanup(daemon.close)
        lines = []
        for number in range(VMS):
            data = f"VM {number} ".encode() * (FILE_BYTES // 8)
            daemon.ctl("vm", "create", f"vm-{number}")
            daemon.ctl("attach", f"vm-{number}", "imc", "--file", daemon.file("hive", data))
            profile = ("firmware", "linux")[number % 2]
            vmm = ("direct", "mediated", "channel")[number % 3]
            lines.append(f"{daemon.link(f'vm-{number}')} {profile} {vmm} {sha256(data)}\n")
        program = os.path.abspath("tests/end_to_end/guests_at_once")
        done = subprocess.run([program], input="".join(lines).encode(), capture_output=True,
                              timeout=600, check=False)
        self.assertEqual(0, done.returncode, done.stderr.decode())
        self.assertIn(f"{VMS} guests had their channels open at once", done.stdout.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
