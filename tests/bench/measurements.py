"""The steps of a run: which daemon, which guests beside it, which rows come of it."""

import contextlib
import os
import pathlib
import subprocess
import time

from daemon_under_test import PROGRAMS, Daemon

REPEATS = 5
FILE_BYTES = 256 << 20
SMALL_FILE_BYTES = 64 << 10
OPEN_VMS = 1_000
ATTACHED_VMS = 10_000
IDLE_WINDOW_S = 60
PROBE_S = 2
DISK = "/var/tmp"  # /tmp may be memory, where a commit costs nothing

_cores = sorted(os.sched_getaffinity(0))
GUEST_CORE = _cores[0]
HOST_CORE = _cores[-1]


def program(command, *options):
    return [PROGRAMS["bench_program"], command, "--guest-core", str(GUEST_CORE), "--host-core",
            str(HOST_CORE), "--repeats", str(REPEATS), *map(str, options)]


def run_guest(samples, command, *options):
    done = subprocess.run(program(command, *options), stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        samples.add_line(line)


@contextlib.contextmanager
def beside(command, *options):
    """The guest's program as a load or as held guests: yields when it says that it is ready."""
    with subprocess.Popen(program(command, *options), stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout.readline() != "open\n":
                raise RuntimeError(f"bench_program {command} failed")
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def daemon_with(file_bytes, clones=(), **folders):
    """A daemon with the VM `reader` and its clones; yields it and the file it serves."""
    daemon = Daemon(HOST_CORE, **folders)
    try:
        file = daemon.folder / "bench.bin"
        block = os.urandom(1 << 16)
        with open(file, "wb") as out:
            for _ in range(file_bytes // len(block)):
                out.write(block)
        daemon.start()
        daemon.attach("reader", file)
        blob = daemon.blob(file)
        file.unlink()
        if clones:
            daemon.stop()
            daemon.clone("reader", clones)
            daemon.start()
        yield daemon, blob
        daemon.stop()
    finally:
        daemon.close()


def read_rows(samples, names):
    with daemon_with(FILE_BYTES) as (daemon, blob):
        for command, rows in (("awake", {"read_12k_awake"}), ("asleep", {"read_12k_asleep"}),
                              ("sequential", {"ring_sequential"}),
                              ("rdma", {"rdma_1m", "rdma_7m"})):
            if rows & names:
                run_guest(samples, command, "--link", daemon.link("reader"), "--file", blob)


def cpu_seconds(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def flood_row(samples, _names):
    """In turns: beside the flooder, then beside a process that burns what the flooder used."""
    with daemon_with(FILE_BYTES // 2, ["flooder"]) as (daemon, _):
        for repeat in range(REPEATS):
            def probe(side):
                run_guest(samples, "probe", "--row", "flood_p99", "--side", side, "--repeat",
                          repeat, "--seconds", PROBE_S, "--link", daemon.link("reader"))

            with beside("flood", "--link", daemon.link("flooder")) as flooder:
                begin, used = time.monotonic(), cpu_seconds(flooder)
                probe("value")
                share = (cpu_seconds(flooder) - used) / (time.monotonic() - begin)
            with beside("burn", "--share", share):
                probe("limit")


def idle(*daemons):
    """Wake-ups of each daemon's data plane in one window, and nothing else runs."""
    time.sleep(2)  # timers after the opens end within 100 ms
    before = [daemon.wakeups() for daemon in daemons]
    time.sleep(IDLE_WINDOW_S)
    return [daemon.wakeups() - count for daemon, count in zip(daemons, before)]


def many_rows(samples, names):
    """10,000 attached VMs in one daemon; 1,000 open ones, of which one reads, in another."""
    with contextlib.ExitStack() as stack:
        idle_rows = []
        if names & {"start_10k", "attached_rss", "attached_wakeups"}:
            attached, _ = stack.enter_context(daemon_with(SMALL_FILE_BYTES))
            alone_kib = attached.private_kib()
            attached.stop()
            attached.clone("reader", [f"vm{i}" for i in range(ATTACHED_VMS - 1)])
            for repeat in range(REPEATS):
                samples.add("start_10k", "value", repeat, [attached.start()])
                grown_kib = attached.private_kib() - alone_kib
                samples.add("attached_rss", "value", repeat, [grown_kib / ATTACHED_VMS])
                if repeat < REPEATS - 1:
                    attached.stop()
            if "attached_wakeups" in names:
                idle_rows.append(("attached_wakeups", attached))
        if names & {"open_rss", "open_wakeups", "scale_1000"}:
            clones = [f"vm{i}" for i in range(OPEN_VMS)]
            opened, blob = stack.enter_context(daemon_with(FILE_BYTES, clones))
            closed_kib = opened.private_kib()
            stack.enter_context(beside("hold", "--links", opened.run / "vm", "--prefix", "vm",
                                       "--count", OPEN_VMS))
            grown_kib = opened.private_kib() - closed_kib
            samples.add("open_rss", "value", 0, [grown_kib / OPEN_VMS])
            if "scale_1000" in names:
                with daemon_with(FILE_BYTES) as (one, _):
                    run_guest(samples, "scale", "--link", opened.link("reader"), "--other-link",
                              one.link("reader"), "--file", blob)
            if "open_wakeups" in names:
                idle_rows.append(("open_wakeups", opened))
        if idle_rows:
            for (row, _), count in zip(idle_rows, idle(*(daemon for _, daemon in idle_rows))):
                samples.add(row, "value", 0, [count])


def control_rows(samples, names):
    """Calls of the control plane, of a daemon whose state is on a disk."""
    with daemon_with(SMALL_FILE_BYTES, state_in=DISK) as (daemon, _):
        server = ("--server", daemon.address())
        if "unary_read" in names:
            socket = daemon.run / "echo.sock"
            with beside("echo", *server, "--echo-socket", socket):
                run_guest(samples, "unary-read", *server, "--echo", f"unix:{socket}")
        if "durable_attach" in names:
            run_guest(samples, "durable-attach", *server, "--folder", daemon.folder)


STEPS = (
    (read_rows, {"read_12k_awake", "read_12k_asleep", "ring_sequential", "rdma_1m", "rdma_7m"}),
    (flood_row, {"flood_p99"}),
    (many_rows, {"start_10k", "attached_rss", "attached_wakeups", "open_rss", "open_wakeups",
                 "scale_1000"}),
    (control_rows, {"unary_read", "durable_attach"}),
)
