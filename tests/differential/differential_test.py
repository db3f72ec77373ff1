#!/usr/bin/python3
"""Hives that we wrote, in the eyes of readers that nobody here wrote.

Each test hive (core/hive/test_hives.h) has the same keys, types and data, in the
same order, for libhivex, libregf's regfexport and reglookup. Debian's Python,
since that one has hivex. A reader that is missing is a failure: tools/setup
installs all three.

Known defects of theirs (shared/specs/imc.md 4.3) and what they show as less than
the bytes are in readers.py, where they are allowed for.
"""

import glob
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import readers  # noqa: E402

READERS = {
    "hivex": readers.read_with_hivex,
    "regfexport": readers.read_with_regfexport,
    "reglookup": readers.read_with_reglookup,
}


def _text(hexadecimal):
    return bytes.fromhex(hexadecimal).decode("utf-16-le")


def _expected(path):
    rows = []
    with open(path, encoding="ascii") as file:
        for line in file:
            kind, path_hex, *value = line.rstrip("\n").split(" ")
            names = tuple(_text(name) for name in path_hex.split("/") if name)
            if kind == "K":
                rows.append(("K", names))
            else:
                name, number, data = value
                rows.append(("V", names, _text(name), int(number), bytes.fromhex(data)))
    return rows


def _short(row):
    text = repr(row)
    return text if len(text) < 400 else text[:400] + " …"


class DifferentialTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls._folder.cleanup)
        program = os.path.join("tests", "differential", "write_hives")
        subprocess.run([program, cls._folder.name], check=True)
        cls._hives = sorted(glob.glob(os.path.join(cls._folder.name, "*.hiv")))

    def _compare(self, reader):
        self.assertGreater(len(self._hives), 8)
        for path in self._hives:
            name = os.path.basename(path)[:-len(".hiv")]
            if (reader, name) in readers.BEYOND:
                continue
            with self.subTest(hive=name):
                expected = _expected(path[:-len(".hiv")] + ".txt")
                seen = READERS[reader](path, expected)
                for wanted, got in zip(expected, seen):
                    self.assertTrue(wanted == got, f"\nwritten {_short(wanted)}\nread    {_short(got)}")
                self.assertEqual(len(expected), len(seen))

    def test_libhivex_reads_what_was_written(self):
        self._compare("hivex")

    def test_regfexport_reads_what_was_written(self):
        self._compare("regfexport")

    def test_reglookup_reads_what_was_written(self):
        self._compare("reglookup")


if __name__ == "__main__":
    sys.exit(unittest.main())
