"""tools/bench --short: what must not creep into the request path, counted from outside.

The kernel counts, for each thread, the system calls that read and those that write
(/proc/PID/task/TID/io), for whoever may look at the process; no tracer, no privilege. So the
counts are exact for preadv2, read and write, eventfds included; what is neither (epoll_wait,
sendmsg) is not seen here. Allocations are counted by unit tests inside the process.
"""

import subprocess

import measurements

READS = 2_000
FILE_BYTES = 64 << 20

# Mode of the guest's program -> the most reading and writing calls a request. The data
# plane reads each block once; signals and doorbells are for a batch, not for a request.
LIMITS = {
    "full": (1.05, 0.25),
    "awake": (1.05, 0.05),
}


def run_short_form():
    failed = False
    with measurements.daemon_with(FILE_BYTES) as (daemon, _):
        command = measurements.program("count", "--link", daemon.link("reader"), "--count", READS)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as guest:
            for mode, limits in LIMITS.items():
                best = _fewest_calls(daemon, guest, mode)
                for kind, calls, limit in zip(("reading", "writing"), best, limits):
                    crept_in = calls > limit
                    failed |= crept_in
                    print(f"{'FAIL' if crept_in else 'ok  '} {mode}: {calls:.3f} {kind} system "
                          f"calls a request, at most {limit}")
            guest.stdin.close()
    print(f"{0 if failed else 1} passed, {1 if failed else 0} failed")
    return 1 if failed else 0


def _fewest_calls(daemon, guest, mode, tries=5):
    """The best of some tries: a guest that loses its core for a moment finds the host asleep."""
    counts = []
    for _ in range(tries):
        before = daemon.io_calls()
        guest.stdin.write(mode + "\n")
        guest.stdin.flush()
        if guest.stdout.readline() != "done\n":
            raise RuntimeError("the guest failed")
        counts.append([(now - then) / READS for now, then in zip(daemon.io_calls(), before)])
    return min(counts, key=sum)
