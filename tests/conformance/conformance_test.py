#!/usr/bin/env python3
"""vmbfs-sanity against the real vmbfsd: everything passes, or says why it was skipped."""

import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "end_to_end"))
from daemon import TIMEOUT_S, Daemon  # noqa: E402

STATEMENTS = 70
PASSED_MIN = 55
# In every run, by the checklist.
SKIPPED_ALWAYS = {3, 4, 27, 56, 61, 63}
MAY_BE_SKIPPED = {39}
NEED_CONTROL = {26, 45, 46, 47, 48}


class Conformance(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        # So that 64 and 66 find files to read by RDMA.
        self.daemon.start("--rdma-bytes-min", "1")
        self.daemon.ctl("vm", "create", "web-7")
        for device, size in (("imc", 200_000), ("boot", 50_000)):
            path = self.daemon.file(device, os.urandom(size))
            self.daemon.ctl("attach", "web-7", device, "--file", path)

    def sanity(self, *options, code=0):
        done = subprocess.run(
            [os.path.join(os.environ["VMBFS_BINARIES"], "../tests/conformance/vmbfs-sanity"),
             "--link", self.daemon.link("web-7"), "--timeout", str(TIMEOUT_S / 4), *options],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done.stdout.splitlines()

    def run_all(self, *options):
        """Runs all statements and returns the numbers of the skipped ones."""
        lines = self.sanity(*options)
        results = [re.fullmatch(r"(PASS|FAIL|SKIP) (\d+) .+", line) for line in lines[:-1]]
        self.assertEqual(list(range(1, STATEMENTS + 1)), [int(each[2]) for each in results])
        of = {word: {int(each[2]) for each in results if each[1] == word}
              for word in ("PASS", "FAIL", "SKIP")}
        self.assertEqual(f"{len(of['PASS'])} passed, 0 failed, {len(of['SKIP'])} skipped",
                         lines[-1])
        return of["SKIP"]

    def test_every_statement_passes_or_says_why_it_cannot(self):
        skipped = self.run_all("--control", f"unix:{self.daemon.run}/admin.sock", "--vm", "web-7")
        self.assertEqual(SKIPPED_ALWAYS, skipped - MAY_BE_SKIPPED)
        self.assertGreaterEqual(STATEMENTS - len(skipped), PASSED_MIN)
        # The device is where it was, with what it had.
        self.assertEqual(200_000, len(self.daemon.guest("web-7", "read", "imc.hiv").stdout))

    def test_without_control_the_rest_passes(self):
        self.assertEqual(SKIPPED_ALWAYS | NEED_CONTROL, self.run_all() - MAY_BE_SKIPPED)

    def test_statements_can_be_chosen_and_listed(self):
        self.assertRegex(self.sanity("--only", "9,21-22")[-1], "^3 passed, 0 failed, 0 skipped$")
        self.assertEqual(STATEMENTS, len(self.sanity("--list")))
        for wrong in (["--only", "x"], ["--only", "99"], ["--vm", "web-7"], ["--what"]):
            self.sanity(*wrong, code=2)

    def test_a_server_that_serves_nothing_fails(self):
        self.daemon.ctl("detach", "web-7", "imc")
        self.assertRegex("\n".join(self.sanity("--only", "28", code=1)),
                         "^FAIL 28 .*not offered\n0 passed, 1 failed, 0 skipped$")


if __name__ == "__main__":
    unittest.main()
