"""A real vmbfsd in a temporary folder, with the real tools around it."""

import hashlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

# Generous: a sanitizer build on a busy machine is many times slower.
TIMEOUT_S = 120


def binary(name):
    """The path of one of the three programs, as the test's BUILD passes it."""
    return os.path.abspath(os.environ["VMBFS_BINARIES"] + f"/{name}/{name}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Daemon:
    """Starts on demand; `close` ends it and removes its folders."""

    def __init__(self):
        # A short path: a socket's may have 107 bytes only.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="vmbfs-e2e-", dir="/tmp"))
        self.state = self.folder / "state"
        self.run = self.folder / "run"
        self.log_path = self.folder / "daemon.log"
        self.process = None

    def command(self, *options):
        return [binary("vmbfsd"), "--state-dir", str(self.state), "--runtime-dir", str(self.run),
                *options]

    def start(self, *options):
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(self.command(*options), stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        while "vmbfsd: ready\n" not in self.log():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not become ready:\n{self.log()}")
            time.sleep(0.02)
        return self

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self):
        """Ends it with SIGTERM and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(TIMEOUT_S)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.process = None

    def close(self):
        log = self.log() if self.log_path.exists() else ""
        code = self.stop() if self.process else 0
        if code == 0:
            shutil.rmtree(self.folder)
        else:
            raise AssertionError(f"the daemon ended with {code}:\n{log}\n{self.log()}")

    def link(self, vm):
        return str(self.run / "vm" / f"{vm}.sock")

    def ctl(self, *arguments, code=0):
        """Runs vmbfsctl, demands the exit code, and returns the finished process."""
        environment = dict(os.environ, VMBFS_SERVER=f"unix:{self.run}/admin.sock")
        return _run([binary("vmbfsctl"), *arguments], code, environment)

    def guest(self, vm, *arguments, profile="firmware", vmm="direct", device="imc",
              timeout=TIMEOUT_S, code=0):
        """Runs vmbfs-guest against a VM's link; stdout comes back as bytes."""
        return _run([binary("vmbfs-guest"), "--link", self.link(vm), "--profile", profile,
                     "--vmm", vmm, "--device", device, "--timeout", str(timeout), *arguments],
                    code)

    def held_guest(self, vm, profile, vmm="direct"):
        return HeldGuest(self.link(vm), profile, vmm)

    def file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


class HeldGuest:
    """A guest that keeps its imc channel open and does as it is told."""

    def __init__(self, link, profile, vmm):
        self._process = subprocess.Popen(
            [os.path.join(os.environ["VMBFS_BINARIES"], "../tests/end_to_end/held_guest"), link,
             profile, vmm], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.first_line = self._process.stdout.readline().strip()

    def do(self, command):
        """`read` and `boot NAME` answer with a digest, `reopen` with `open`; else an error."""
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def finish(self):
        """Closes, unloads, and returns the exit code."""
        self._process.communicate(timeout=TIMEOUT_S)
        return self._process.returncode


def _run(command, code, environment=None):
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=3 * TIMEOUT_S, check=False)
    if done.returncode != code:
        raise AssertionError(f"{command[0]} {' '.join(command[1:])}: exit {done.returncode}, "
                             f"expected {code}\nstdout: {done.stdout[:2000]!r}\n"
                             f"stderr: {done.stderr.decode(errors='replace')}")
    return done
