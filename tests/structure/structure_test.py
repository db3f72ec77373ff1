#!/usr/bin/env python3
"""Runs the tree's rules over the tree, and over small trees that break them."""

import os
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import structure  # noqa: E402

# Runfiles are links into the tree; following one leads to its top.
ROOT = pathlib.Path(__file__).resolve().parents[2]


class TheTree(unittest.TestCase):
    def test_keeps_its_rules(self):
        self.assertTrue((ROOT / "WORKSPACE").is_file(), f"{ROOT} is not the top of the tree")
        self.assertEqual([], structure.problems(ROOT))


class ABrokenTree(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self._folder.name)
        for folder in structure.MAY_USE:
            self.write(f"{folder}/README.md", "")

    def tearDown(self):
        self._folder.cleanup()

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def only_problem(self):
        found = structure.problems(self.root)
        self.assertEqual(1, len(found), found)
        return found[0]

    def test_an_include_against_the_direction_is_named(self):
        self.write("hyperv/ring/ring.cc", '#include "core/path/guest_path.h"\n')
        self.assertIn("hyperv may not include core/path", self.only_problem())

    def test_rpc_below_grpc_is_named(self):
        self.write("core/vm/vm.cc", '\n#include "vmbfs/v1/vms.pb.h"\n')
        self.assertIn("core/vm/vm.cc:2", self.only_problem())

    def test_a_dependency_against_the_direction_is_named(self):
        self.write("core/vm/BUILD", 'cc_binary(deps = ["//grpc/server:server"])\n')
        self.assertIn("core may not depend on //grpc/server", self.only_problem())

    def test_public_visibility_is_named(self):
        self.write("hyperv/ring/BUILD",
                   'package(default_visibility = ["//visibility:public"])\ncc_library()\n')
        self.assertIn("//hyperv:users", self.only_problem())

    def test_a_catch_all_package_is_named(self):
        self.write("core/util/x.h", "#pragma once\n")
        self.assertIn("name the package", self.only_problem())

    def test_a_header_without_guard_is_named(self):
        self.write("core/vm/x.h", "int x;\n")
        self.assertIn("#pragma once", self.only_problem())


if __name__ == "__main__":
    unittest.main()
