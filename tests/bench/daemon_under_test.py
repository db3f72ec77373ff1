"""A real vmbfsd, watched from outside: its folders, VMs, threads, memory and system calls."""

import hashlib
import os
import pathlib
import shutil
import signal
import sqlite3
import struct
import subprocess
import tempfile
import time

PROGRAMS = {}  # name -> path; bench.py fills it
TIMEOUT_S = 120


class Daemon:
    """Folders of its own, removed by `close`. One data-plane thread, so that it can be pinned."""

    def __init__(self, host_core, state_in="/tmp", count_allocations=False):
        # A short path: a socket's may have 107 bytes only.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmbfs-bench-", dir=state_in))
        # Sockets lie in memory where a host has its /run; ext4 gives no inode away again within
        # seconds after a restart removed 10,000, and looks at each of them every time.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="vmbfs-bench-", dir=memory))
        self._host_core = host_core
        self._environment = dict(os.environ)
        if count_allocations:
            watched = self.folder / "allocations"
            watched.touch()
            self._environment.update(LD_PRELOAD=PROGRAMS["allocation_watch"],
                                     VMBFS_ALLOCATION_WATCH=str(watched))
        self._process = None

    def start(self):
        """Returns the seconds until it said that it is ready."""
        begin = time.monotonic()
        self._process = subprocess.Popen(
            [PROGRAMS["vmbfsd"], "--state-dir", self.folder / "state", "--runtime-dir", self.run,
             "--data-plane-threads", "1"], stderr=subprocess.PIPE, text=True,
            env=self._environment)
        said = ""
        for line in self._process.stderr:
            if line == "vmbfsd: ready\n":
                break
            said += line
        else:
            raise RuntimeError(f"vmbfsd did not start: {said}")
        seconds = time.monotonic() - begin
        for thread in self.data_threads():
            os.sched_setaffinity(thread, {self._host_core})
        return seconds

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        _, errors = self._process.communicate(timeout=TIMEOUT_S)
        if self._process.returncode != 0:
            raise RuntimeError(f"vmbfsd ended with {self._process.returncode}: {errors}")
        self._process = None

    def close(self):
        if self._process:
            self._process.kill()
            self._process.wait()
        for folder in (self.folder, self.run):
            shutil.rmtree(folder, ignore_errors=True)

    def address(self):
        return f"unix:{self.run}/admin.sock"

    def link(self, vm):
        return str(self.run / "vm" / f"{vm}.sock")

    def attach(self, vm, file):
        """Makes the VM and gives its boot device the file, as `bench.bin`."""
        for arguments in (["vm", "create", vm],
                          ["attach", vm, "boot", "--file", file, "--name", "bench.bin"]):
            subprocess.run([PROGRAMS["vmbfsctl"], "--timeout", "120", *arguments], check=True,
                           stdout=subprocess.DEVNULL,
                           env=dict(os.environ, VMBFS_SERVER=self.address()))

    def clone(self, vm, names):
        """Registers VMs with the same attachment. REQUIRES: the daemon does not run."""
        database = sqlite3.connect(self.folder / "state" / "state.db")
        for table, column in (("vms", "name"), ("attachments", "vm")):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            picked = ", ".join("?" if name == column else name for name in columns)
            database.executemany(
                f"INSERT INTO {table} SELECT {picked} FROM {table} WHERE {column} = '{vm}'",
                ([name] for name in names))
        database.commit()
        database.close()

    def blob(self, file):
        """Where the daemon keeps this content: the limits read the very same pages."""
        with open(file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        return str(self.folder / "state" / "blobs" / digest[:2] / digest)

    def _proc(self, *parts):
        return pathlib.Path("/proc", str(self._process.pid), *map(str, parts))

    def data_threads(self):
        return [int(task.name) for task in self._proc("task").iterdir()
                if (task / "comm").read_text().startswith("vmbfs-data")]

    def wakeups(self):
        """How often the data-plane threads went to sleep so far."""
        return sum(_field(self._proc("task", thread, "status"), "voluntary_ctxt_switches:")
                   for thread in self.data_threads())

    def io_calls(self):
        """System calls of the data-plane threads so far that read, and that write."""
        paths = [self._proc("task", thread, "io") for thread in self.data_threads()]
        return (sum(_field(path, "syscr:") for path in paths),
                sum(_field(path, "syscw:") for path in paths))

    def allocations(self):
        """Of the data-plane threads so far. REQUIRES: count_allocations. See allocation_watch.cc."""
        content = (self.folder / "allocations").read_bytes()
        counts = dict(struct.iter_unpack("=QQ", content))
        # None would mean that nothing is counted: to open a channel takes some.
        if not all(counts.get(thread) for thread in self.data_threads()):
            raise RuntimeError("the daemon's allocations are not counted")
        return sum(counts[thread] for thread in self.data_threads())

    def private_kib(self):
        """Memory that is the daemon's alone: the guests' RAM is shared with them."""
        rollup = self._proc("smaps_rollup")
        return _field(rollup, "Private_Clean:") + _field(rollup, "Private_Dirty:")


def _field(path, name):
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise RuntimeError(f"{path} has no {name}")
