"""tools/bench --short: what must not creep into the request path, counted from outside.

The kernel counts, for each thread, the system calls that read and those that write
(/proc/PID/task/TID/io), for whoever may look at the process; no tracer, no privilege. So the
counts are exact for preadv2, read and write, eventfds included; what is neither (epoll_wait,
sendmsg) is not seen here. Allocations are counted by a library that is loaded into the daemon
(allocation_watch.cc).
"""

import subprocess

import measurements

READS = 2_000
FILE_BYTES = 64 << 20

KINDS = ("reading system calls", "writing system calls", "allocations")
# Mode of the guest's program -> the most of each a request. The data plane reads each block
# once; signals and doorbells are for a batch, not for a request.
LIMITS = {
    "full": (1.05, 0.25, 0),
    "awake": (1.05, 0.05, 0),
}


def run_short_form():
    failed = False
    with measurements.daemon_with(FILE_BYTES, count_allocations=True) as (daemon, _):
        command = measurements.program("count", "--link", daemon.link("reader"), "--count", READS)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as guest:
            for mode, limits in LIMITS.items():
                best = _fewest(daemon, guest, mode, limits)
                for kind, count, limit in zip(KINDS, best, limits):
                    crept_in = count > limit
                    failed |= crept_in
                    print(f"{'FAIL' if crept_in else 'ok  '} {mode}: {count:.3f} {kind} a "
                          f"request, at most {limit}")
            guest.stdin.close()
    print(f"{0 if failed else 1} passed, {1 if failed else 0} failed")
    return 1 if failed else 0


def _counts(daemon):
    return (*daemon.io_calls(), daemon.allocations())


def _fewest(daemon, guest, mode, limits, tries=10):
    """Of each kind the fewest of some tries: what crept in is in all of them, and a guest that
    loses its core for a moment finds the host asleep, which costs more."""
    fewest = [float("inf")] * len(limits)
    for _ in range(tries):
        before = _counts(daemon)
        guest.stdin.write(mode + "\n")
        guest.stdin.flush()
        if guest.stdout.readline() != "done\n":
            raise RuntimeError("the guest failed")
        counts = [(now - then) / READS for now, then in zip(_counts(daemon), before)]
        fewest = list(map(min, fewest, counts))
        if all(count <= limit for count, limit in zip(fewest, limits)):
            break
    return fewest
