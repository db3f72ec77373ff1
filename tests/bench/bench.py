#!/usr/bin/env python3
"""tools/bench: measures everything in one run, beside what the machine itself can do.

  tools/bench                    all rows: a table, bench.json and two plots in this folder
  tools/bench NAME...            only these rows
  tools/bench --compare OLD.json the same, and what changed beyond the noise
  tools/bench --short            seconds: system calls and allocations a request of the real
                                 daemon, counted; exit code 1 when one crept in
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

import measurements
import plots
from daemon_under_test import PROGRAMS
from rows import ROWS, Samples, compare, result, table
from short_form import run_short_form


def machine():
    """What a reader must know of it to judge the numbers."""
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpu.splitlines()
                  if line.startswith("model name")), platform.machine())
    virtual = "hypervisor" in cpu
    memory_kib = int(pathlib.Path("/proc/meminfo").read_text().split()[1])
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(memory_kib / 2**20), "kernel": platform.release(),
            "virtual": virtual, "load_before": os.getloadavg()[0]}


def measure(names):
    samples = Samples()
    for step, rows in measurements.STEPS:
        if names & rows:
            print(f"[{time.monotonic() - START:4.0f} s] {', '.join(sorted(names & rows))}",
                  file=sys.stderr)
            step(samples, names & rows)
    return samples


def main():
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *ROWS])
    parser.add_argument("--compare", metavar="OLD.json")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--programs", required=True, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name, path in (("vmbfsd", "tools/vmbfsd/vmbfsd"), ("vmbfsctl", "tools/vmbfsctl/vmbfsctl"),
                       ("bench_program", "tests/bench/bench_program"),
                       ("allocation_watch", "tests/bench/liballocation_watch.so")):
        PROGRAMS[name] = os.path.join(arguments.programs, path)
    if arguments.short:
        return run_short_form()

    # Read first: it may be the bench.json that this run replaces.
    old = json.loads(pathlib.Path(arguments.compare).read_text()) if arguments.compare else None
    names = set(arguments.names or ROWS)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()), file=sys.stderr)
    samples = measure(names)
    results = [result(samples, name) for name in samples.rows() if name in names]
    report = {"machine": about, "results": results}
    pathlib.Path("bench.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    pathlib.Path("bench-ratios.svg").write_text(plots.ratios(results), encoding="utf-8")
    pathlib.Path("bench-latencies.svg").write_text(plots.latencies(samples), encoding="utf-8")
    print(table(results))
    if old:
        print("\n".join([f"\nagainst {arguments.compare}:", *compare(old, report)]))
    print(f"\n{time.monotonic() - START:.0f} s; bench.json, bench-ratios.svg and "
          "bench-latencies.svg are in this folder", file=sys.stderr)
    return 0


START = time.monotonic()
if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
