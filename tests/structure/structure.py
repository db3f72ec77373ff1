"""Rules about the tree as a whole, read from its files.

Folders depend in one direction, hyperv <- core <- grpc <- tools; tests may use
all. The build enforces it by visibility; this says which line breaks it, and
that no package opens its visibility past its folder's rule.
"""

import os
import re

# Folder -> folders whose headers and targets it may use.
MAY_USE = {
    "hyperv": {"hyperv"},
    "core": {"hyperv", "core"},
    "grpc": {"core", "grpc", "proto"},
    "proto": {"proto"},
    "tools": {"hyperv", "core", "grpc", "proto", "tools"},
    "tests": {"hyperv", "core", "grpc", "proto", "tools", "tests"},
}
# Package group that each folder's packages are visible to.
VISIBLE_TO = {"hyperv": "//hyperv:users", "core": "//core:users", "grpc": "//grpc:users"}
TOP_LEVEL = {"WORKSPACE", "BUILD", "core", "grpc", "hyperv", "proto", "tools", "tests"}

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
# A label of a target; "//a/..." and "//a:__subpackages__" say who may see one.
_LABEL = re.compile(r'"//([^":]*?)(?:"|:(?!__))(?<!\.\.\.")')
_BANNED_FOLDER_NAMES = {"util", "utils", "common", "base", "helpers"}


def _source_files(root, folder):
    for path, folders, names in os.walk(os.path.join(root, folder)):
        folders.sort()
        for name in sorted(names):
            yield os.path.relpath(os.path.join(path, name), root)


def _lines(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return list(enumerate(file.read().splitlines(), start=1))


def _include_problems(root, path, folder):
    for number, line in _lines(root, path):
        match = _INCLUDE.match(line)
        target = match.group(1).split("/")[0] if match else None
        if target == "vmbfs":
            target = "proto"  # generated from proto/vmbfs
        if target in MAY_USE and target not in MAY_USE[folder]:
            yield f"{path}:{number}: {folder} may not include {match.group(1)}"
        if re.match(r"^\s*using namespace (?!std::(literals|chrono_literals|string_literals))", line):
            yield f"{path}:{number}: name what is used instead of a whole namespace"


def _build_problems(root, path, folder):
    text = "\n".join(line for _, line in _lines(root, path))
    for number, line in _lines(root, path):
        for label in _LABEL.findall(line):
            target = label.split("/")[0]
            is_build_glue = label.startswith("tools/build")
            if target in MAY_USE and target not in MAY_USE[folder] and not is_build_glue:
                yield f"{path}:{number}: {folder} may not depend on //{label}"
    if folder in VISIBLE_TO and path != f"{folder}/BUILD":
        if "//visibility:public" in text:
            yield f"{path}: use {VISIBLE_TO[folder]} in place of //visibility:public"
        if "cc_library" in text and "default_visibility" not in text:
            yield f'{path}: set default_visibility = ["{VISIBLE_TO[folder]}"] or private'


def problems(root):
    """All breaches under `root`, a line each, with what to do."""
    found = []
    for folder in MAY_USE:
        if not os.path.isdir(os.path.join(root, folder)):
            found.append(f"{folder}: the folder is missing")
            continue
        if not os.path.isfile(os.path.join(root, folder, "README.md")):
            found.append(f"{folder}/README.md: write the page a newcomer stops at")
        for path in _source_files(root, folder):
            parts = path.split("/")
            for part in parts[:-1]:
                if part in _BANNED_FOLDER_NAMES:
                    found.append(f"{path}: name the package for what it provides, not {part}")
            if path.endswith((".h", ".cc")):
                found.extend(_include_problems(root, path, folder))
            if path.endswith(".h") and not any(
                    line == "#pragma once" for _, line in _lines(root, path)):
                found.append(f"{path}: begin with #pragma once")
            if parts[-1] == "BUILD":
                found.extend(_build_problems(root, path, folder))
    for name in sorted(os.listdir(root)):
        made_by_tools = name.startswith((".", "bazel-")) or name == "fuzz-findings"
        if os.path.isdir(os.path.join(root, name)) and not made_by_tools:
            if name not in TOP_LEVEL:
                found.append(f"{name}: not one of the top-level folders")
    return found
