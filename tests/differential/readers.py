"""What other people's readers see in a hive, as rows of one form.

A row is ("K", path) or ("V", path, name, type, data): a path is a tuple of names,
a name a str, data bytes. Rows come in the order of the reader: a key, its
values, its subkeys.

Where a reader shows less than the bytes, it is asked whether its text fits what
is expected: `expected` has those rows, and a fitting row comes back as expected.
"""

import csv
import re
import subprocess
import urllib.parse

import hivex

csv.field_size_limit(1 << 30)

# What a reader cannot show at all, by reader and hive, and why; measured.
BEYOND = {
    ("hivex", "value_64_mebibytes"): "it takes values of at most 8,000,000 bytes",
    ("regfexport", "value_64_mebibytes"): "its time grows with the square: half an hour",
    ("reglookup", "value_64_mebibytes"): "it shows 1 MiB of a value",
    ("reglookup", "value_3_mebibytes"): "it shows 1 MiB of a value",
}

_SZ, _EXPAND, _BINARY, _DWORD, _BIG_ENDIAN, _LINK, _MULTI, _QWORD = 1, 2, 3, 4, 5, 6, 7, 11
_TEXTS = (_SZ, _EXPAND, _LINK)


def read_with_hivex(path, _expected):
    hive = hivex.Hivex(path)
    rows = []
    waiting = [(hive.root(), ())]
    while waiting:
        node, names = waiting.pop()
        rows.append(("K", names))
        for value in hive.node_values(node):
            kind, data = hive.value_value(value)
            # It gives types back as signed numbers.
            rows.append(("V", names, hive.value_key(value), kind & 0xFFFFFFFF, data))
        children = [(child, names + (hive.node_name(child),)) for child in hive.node_children(node)]
        waiting.extend(reversed(children))
    return rows


def _run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
                          env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}).stdout


_REGF_TYPES = {
    "undefined (REG_NONE)": 0, "string (REG_SZ)": _SZ,
    "expandable string (REG_EXPAND_SZ)": _EXPAND, "binary data (REG_BINARY)": _BINARY,
    "32-bit integer little-endian (REG_DWORD_LITTLE_ENDIAN)": _DWORD,
    "32-bit integer big-endian (REG_DWORD_BIG_ENDIAN)": _BIG_ENDIAN,
    "symbolic link (REG_LINK)": _LINK, "multi-value string (REG_MULTI_SZ)": _MULTI,
    "resource list (REG_RESOURCE_LIST)": 8,
    "full resource descriptor (REG_FULL_RESOURCE_DESCRIPTOR)": 9,
    "resource requirements list (REG_RESOURCE_REQUIREMENTS_LIST)": 10,
    "64-bit integer little-endian (REG_QWORD_LITTLE_ENDIAN)": _QWORD,
}


def _regf_data(kind, lines):
    """Of the lines behind "Data size: N"."""
    if not lines:
        return b""
    if lines[0] == "Data:":
        dump = (re.match(r"[0-9a-f]{8,}: ((?:[0-9a-f]{2} {1,2})+)", line) for line in lines[1:])
        return b"".join(bytes.fromhex(match.group(1)) for match in dump if match)
    text = lines[0][len("Data: "):]
    if kind == _DWORD:
        return int(text).to_bytes(4, "little")
    if kind == _BIG_ENDIAN:
        return int(text).to_bytes(4, "big")
    if kind == _QWORD:
        return int(text).to_bytes(8, "little")
    return (text + "\0").encode("utf-16-le")


def read_with_regfexport(path, expected):
    rows = []
    names = ()
    texts = _run("regfexport", path).decode("utf-8").split("\n\n")
    for text in texts:
        lines = text.strip("\n").split("\n")
        if lines[0].startswith("Key path: "):
            names = tuple(lines[0][len("Key path: "):].split("\\")[1:])
            rows.append(("K", names))
            del lines[:2]  # and the line "Key: NAME"
        if not lines or not lines[0].startswith("Value: "):
            continue
        name = lines[0].split(" ", 2)[2]
        kind_text = lines[1][len("Type: "):]
        kind = _REGF_TYPES.get(kind_text)
        if kind is None:
            kind = int(kind_text[len("unknown: "):], 16)
        size = int(lines[2][len("Data size: "):])
        data = _regf_data(kind, lines[3:])
        row = ("V", names, "" if name == "(default)" else name, kind, data)
        if size != len(data):
            raise ValueError(f"{row[:4]}: {size} bytes, shown are {len(data)}")
        # Known defect: of 1 to 3 bytes within the record it shows the field's last
        # bytes in place of the first.
        wanted = expected[len(rows)] if len(rows) < len(expected) else None
        if 1 <= size <= 3 and wanted and len(wanted) == 5:
            field = wanted[4] + bytes(4 - size)
            if len(field) == 4 and data == field[4 - size:]:
                row = row[:4] + (wanted[4],)
        rows.append(row)
    return rows


_REGLOOKUP_TYPES = {
    "NONE": 0, "SZ": _SZ, "EXPAND_SZ": _EXPAND, "BINARY": _BINARY, "DWORD": _DWORD,
    "DWORD_BE": _BIG_ENDIAN, "LINK": _LINK, "MULTI_SZ": _MULTI, "RSRC_LIST": 8, "RSRC_DESC": 9,
    "RSRC_REQ_LIST": 10, "QWORD": _QWORD,
}


def _shown_name(shown, wanted):
    """`wanted`, when its Latin-1 or UTF-16 bytes are shown; otherwise what is."""
    forms = [wanted.encode("utf-16-le")]
    if all(ord(each) < 256 for each in wanted):
        forms.append(wanted.encode("latin-1"))
    forms.append(wanted.encode("utf-8"))
    return wanted if shown in forms else repr(shown)


def _reglookup_data(kind, shown, wanted):
    if kind in (_DWORD, _BIG_ENDIAN):
        return int(shown, 16).to_bytes(4, "little" if kind == _DWORD else "big")
    if kind == _QWORD:
        return int(shown, 16).to_bytes(8, "little")
    if shown == "(null)" and not wanted:
        return b""
    raw = urllib.parse.unquote_to_bytes(shown)
    if kind in _TEXTS + (_MULTI,):
        # Text without its NULs, in ASCII; the raw bytes where that is not possible.
        text = wanted.decode("utf-16-le").rstrip("\0").replace("\0", "|")
        if raw in (wanted, text.encode("utf-8")):
            return wanted
    return raw


def read_with_reglookup(path, expected):
    lines = _run("reglookup", path).decode("ascii").splitlines()
    rows = []
    for shown, (line_path, kind, data, _) in zip(expected, csv.reader(lines[1:])):
        # A value's path has an element more, and the root's are "/" and "//NAME".
        parts = line_path[1:].split("/") if line_path != "/" else []
        if kind != "KEY" and parts and parts[0] == "":
            parts = parts[1:]
        wanted = list(shown[1]) + ([shown[2]] if len(shown) == 5 else [])
        parts = [urllib.parse.unquote_to_bytes(part) for part in parts]
        names = tuple(_shown_name(part, name) for part, name in zip(parts, wanted))
        if len(parts) != len(wanted):
            names = tuple(repr(part) for part in parts)
        if kind == "KEY":
            rows.append(("K", names))
            continue
        number = _REGLOOKUP_TYPES[kind] if kind in _REGLOOKUP_TYPES else int(kind, 16)
        wanted_data = shown[4] if len(shown) == 5 else b""
        rows.append(("V", names[:-1], names[-1], number,
                     _reglookup_data(number, data, wanted_data)))
    if len(lines) - 1 != len(expected):
        raise ValueError(f"{len(lines) - 1} rows are shown; {len(expected)} are expected")
    return rows
