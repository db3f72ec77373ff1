#!/usr/bin/env python3
"""A VMM that takes its guest's memory away while the daemon uses it."""

import os
import socket
import struct
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from daemon import TIMEOUT_S, Daemon  # noqa: E402

# hyperv/link/README.md
HELLO, MEM_ADD, START, PAUSE = 0x01, 0x02, 0x04, 0x05
SYNIC, POST, SINT_GET = 0x20, 0x21, 0x30
REPLY, NEED_ACK, ERROR = 1, 2, 4
PAGE = 4096
RAM_BYTES = 16 * PAGE


class Vmm:
    """As much of a VMM as a guest's first message takes."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(path)
        self.ram = os.memfd_create("ram")  # without seals
        os.ftruncate(self.ram, RAM_BYTES)
        self.ask(HELLO, struct.pack("<HHIQ16sIII", 1, 0, 1, 0, bytes(16), 1, 1, 0))

    def close(self):
        self.socket.close()
        os.close(self.ram)

    def send(self, number, payload=b"", flags=0, seq=1, fds=()):
        header = struct.pack("<IHHIIQ", 0x564C0000 + number, flags, len(fds), len(payload), 0, seq)
        socket.send_fds(self.socket, [header + payload], fds)

    def take(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise AssertionError("the daemon ended the connection")
            data += more
        return data

    def receive(self):
        number, flags, _, length, _, seq = struct.unpack("<IHHIIQ", self.take(24))
        return number - 0x564C0000, flags, seq, self.take(length)

    def ask(self, number, payload=b"", fds=()):
        """Sends with NEED_ACK and returns the reply's flags and payload."""
        self.send(number, payload, NEED_ACK, fds=fds)
        while True:
            answered, flags, _, body = self.receive()
            if answered == number and flags & REPLY:
                return flags, body

    def add_memory(self):
        return self.ask(MEM_ADD, struct.pack("<IIQQQ", 1, 0, 0, RAM_BYTES, 0), [self.ram])

    def start(self):
        message_page, event_page = PAGE | 1, 2 * PAGE | 1
        self.send(SYNIC, struct.pack("<IIQQQQ", 0, 0, 1, event_page, message_page, 0x41))
        self.ask(START)

    def post_contact(self):
        message = struct.pack("<II8I", 14, 0, 0x40000, 0, 0, 0, 0, 0, 0, 0)
        self.send(POST, struct.pack("<QIIII240s", 1, 0, 1, 1, len(message), message))

    def await_sint_get(self):
        while True:
            number, flags, seq, _ = self.receive()
            if number == SINT_GET and not flags & REPLY:
                return seq

    def give_interrupt(self, seq):
        interrupt = os.eventfd(0)
        self.send(SINT_GET, flags=REPLY, seq=seq, fds=[interrupt])
        os.close(interrupt)


class UnsealedMemory(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)
        self.daemon.start()
        self.daemon.ctl("vm", "create", "sealed")
        self.daemon.ctl("vm", "create", "open", "--allow-unsealed-memory")

    def vmm(self, vm):
        vmm = Vmm(self.daemon.link(vm))
        self.addCleanup(vmm.close)
        return vmm

    def test_it_is_refused_without_the_option_and_taken_with_it_also_after_a_restart(self):
        for _ in range(2):
            flags, reason = self.vmm("sealed").add_memory()
            self.assertEqual(REPLY | ERROR, flags)
            self.assertIn(b"not sealed against shrinking", reason)
            flags, reason = self.vmm("open").add_memory()
            self.assertEqual((REPLY, b""), (flags, reason))
            self.assertIn(b"may be unsealed", self.daemon.ctl("vm", "get", "open").stdout)
            self.assertNotIn(b"unsealed", self.daemon.ctl("vm", "get", "sealed").stdout)
            self.daemon.kill()
            self.daemon.start()

    def test_memory_that_vanishes_under_the_daemon_costs_no_other_vm_anything(self):
        self.daemon.ctl("attach", "sealed", "imc", "--file", self.daemon.file("hive", b"hive"))
        vmm = self.vmm("open")
        vmm.add_memory()
        vmm.start()
        vmm.post_contact()
        sint_get = vmm.await_sint_get()
        os.ftruncate(vmm.ram, 0)
        vmm.give_interrupt(sint_get)  # now the answer goes into the message page
        self.assertEqual(REPLY, vmm.ask(PAUSE)[0])
        self.assertEqual(b"hive", self.daemon.guest("sealed", "read", "imc.hiv").stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
