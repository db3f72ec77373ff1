#!/usr/bin/env python3
"""The three programs together, as users run them."""

import json
import os
import pathlib
import stat
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from daemon import Daemon, binary, sha256  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
HIVE_SHA256 = "cfb2d25a18143feb8739736f816fcd7eac433f6466ab7d0ecdae67d7fb75b8a0"
PROFILES = ("firmware", "linux")
VMMS = ("direct", "mediated", "channel")
GUESTS = tuple((profile, vmm) for vmm in VMMS for profile in PROFILES)


def pattern(size, seed=0):
    """Bytes in which every 8-byte word says where it stands, so a slip shows."""
    words = (size + 7) // 8
    return b"".join(((seed << 40) + i).to_bytes(8, "little") for i in range(words))[:size]


class EndToEnd(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.close)

    def start_with(self, data, device="imc", name="source.bin", vm="web-7"):
        self.daemon.start()
        self.daemon.ctl("vm", "create", vm)
        self.daemon.ctl("attach", vm, device, "--file", self.daemon.file(name, data))

    def read(self, path="imc.hiv", vm="web-7", **options):
        return self.daemon.guest(vm, "read", path, **options).stdout

    def attachment(self, device="imc", vm="web-7"):
        answer = json.loads(self.daemon.ctl("-o", "json", "vm", "get", vm).stdout)
        return next(a for a in answer["attachments"] if a["name"].endswith("/" + device))


class Reading(EndToEnd):
    def test_each_guest_over_each_form_of_the_link_reads_the_hive_made_on_windows(self):
        hive = ROOT / ".." / "shared" / "data" / "openvmm-imc.hiv"
        if not hive.is_file():
            self.skipTest(f"{hive} is not there")
        data = hive.read_bytes()
        self.assertEqual(HIVE_SHA256, sha256(data))
        self.start_with(data)
        for profile, vmm in GUESTS:
            self.assertEqual(HIVE_SHA256, sha256(self.read(profile=profile, vmm=vmm)), vmm)

    def test_both_profiles_read_files_around_the_limits_of_a_message(self):
        self.daemon.start()
        self.daemon.ctl("vm", "create", "web-7")
        for index, size in enumerate((0, 1, 12276, 12277, 5 << 20)):
            data = pattern(size, seed=index)
            path = self.daemon.file("kernel.bin", data)
            self.daemon.ctl("swap" if index else "attach", "web-7", "boot", "--file", path)
            for profile in PROFILES:
                got = self.read("kernel.bin", device="boot", profile=profile)
                self.assertEqual(sha256(data), sha256(got), f"{size} bytes, {profile}")

    def test_a_file_is_found_in_any_case_with_any_separator_and_through_dots(self):
        self.start_with(b"hive")
        for path in ("imc.hiv", "\\imc.hiv", "/imc.hiv", "IMC.HIV", "\\Imc.Hiv", "\\\\imc.hiv",
                     ".\\imc.hiv", "a\\..\\imc.hiv", "/./b/../imc.hiv", "imc.hiv/"):
            self.assertEqual(b"hive", self.read(path), path)

    def test_what_is_not_there_is_not_found(self):
        self.start_with(b"hive")
        for path in ("other.hiv", "..\\imc.hiv", "a\\..\\..\\imc.hiv", "dir\\imc.hiv", "imc"):
            done = self.daemon.guest("web-7", "read", path, code=3)
            self.assertEqual(b"", done.stdout, path)

    def test_a_guest_that_signals_through_the_monitor_page_reads_where_channels_are_monitored(self):
        data = pattern(200_000)
        self.daemon.start()
        for vm, options in (("plain", ()), ("old-linux", ("--monitored",))):
            self.daemon.ctl("vm", "create", vm, *options)
            self.daemon.ctl("attach", vm, "imc", "--file", self.daemon.file("hive", data))
        self.daemon.kill()  # the option is stored with the VM
        self.daemon.start()
        signal = ("--signal", "monitor", "read", "imc.hiv")
        for vmm in ("direct", "mediated"):
            done = self.daemon.guest("old-linux", *signal, profile="linux", vmm=vmm)
            self.assertEqual(sha256(data), sha256(done.stdout), vmm)
            refused = self.daemon.guest("plain", *signal, profile="linux", vmm=vmm, code=1)
            self.assertIn(b"the channel is not monitored", refused.stderr)
            for profile in PROFILES:
                self.assertEqual(data, self.read(vm="old-linux", profile=profile, vmm=vmm))
        self.assertEqual(data, self.read(vm="old-linux", profile="linux", vmm="channel"))
        link = self.daemon.ctl("inspect", "vms/old-linux/link").stdout.decode()
        self.assertRegex(link, r"monitor_signals: +[1-9]")
        link = self.daemon.ctl("inspect", "vms/plain/link").stdout.decode()
        self.assertRegex(link, r"monitor_polls: +0\n")

    def test_info_tells_size_and_kind(self):
        self.start_with(b"x" * 70)
        self.assertIn(b"70 bytes", self.daemon.guest("web-7", "info", "imc.hiv").stdout)
        self.assertIn(b"directory", self.daemon.guest("web-7", "info", "\\").stdout)

    def test_both_devices_of_one_vm_serve_their_own_file(self):
        self.start_with(b"the hive")
        self.daemon.ctl("attach", "web-7", "boot", "--file",
                        self.daemon.file("bootmgr.efi", b"the boot file"))
        self.assertEqual(b"the hive", self.read())
        self.assertEqual(b"the boot file", self.read("bootmgr.efi", device="boot"))
        self.daemon.guest("web-7", "read", "imc.hiv", device="boot", code=3)


    def test_a_guest_has_both_devices_open_at_once_over_each_form_of_the_link(self):
        hive, image = pattern(70_000, seed=1), pattern(300_000, seed=2)
        self.start_with(hive)
        self.daemon.ctl("attach", "web-7", "boot", "--file", self.daemon.file("boot.wim", image))
        for profile, vmm in GUESTS:
            guest = self.daemon.held_guest("web-7", profile, vmm)
            self.assertEqual("open", guest.first_line, vmm)
            for _ in range(2):
                self.assertEqual(sha256(image), guest.do("boot boot.wim"), vmm)
                self.assertEqual(sha256(hive), guest.do("read"), vmm)
            self.assertTrue(self.attachment("imc")["open"])
            self.assertTrue(self.attachment("boot")["open"])
            self.assertEqual(0, guest.finish(), vmm)


class Swapping(EndToEnd):
    def test_the_next_open_reads_the_new_content(self):
        self.start_with(b"old")
        self.assertEqual(b"old", self.read())
        self.daemon.ctl("swap", "web-7", "imc", "--file", self.daemon.file("new", b"new!"))
        self.assertEqual("blobs/" + sha256(b"new!"), self.attachment()["file"]["blob"])
        self.assertEqual(b"new!", self.read())

    def test_detach_takes_the_device_away_and_attach_brings_it_back(self):
        self.start_with(b"one")
        self.daemon.ctl("detach", "web-7", "imc")
        self.daemon.guest("web-7", "read", "imc.hiv", timeout=2, code=4)
        self.daemon.ctl("attach", "web-7", "imc", "--file", self.daemon.file("two", b"two"))
        self.assertEqual(b"two", self.read())

    def test_an_open_channel_keeps_what_it_opened_with_until_it_opens_again(self):
        old, new = pattern(100_000, seed=1), pattern(90_000, seed=2)
        self.start_with(old)
        for seed, (profile, vmm) in enumerate(GUESTS):
            guest = self.daemon.held_guest("web-7", profile, vmm)
            self.assertEqual("open", guest.first_line, vmm)
            self.assertEqual(sha256(old), guest.do("read"))
            self.daemon.ctl("swap", "web-7", "imc", "--file", self.daemon.file("new", new))
            self.assertEqual(sha256(old), guest.do("read"))
            attachment = self.attachment()
            self.assertTrue(attachment["open"])
            self.assertEqual("blobs/" + sha256(new), attachment["file"]["blob"])
            self.assertEqual("blobs/" + sha256(old), attachment["active"]["file"]["blob"])
            self.assertEqual("open", guest.do("reopen"))
            self.assertEqual(sha256(new), guest.do("read"))
            self.assertEqual(0, guest.finish())
            old, new = new, pattern(80_000, seed=3 + seed)

    def test_what_a_guest_has_open_is_taken_away_by_force_only(self):
        self.start_with(b"hive")
        for vmm in VMMS:
            guest = self.daemon.held_guest("web-7", "linux", vmm)
            self.assertEqual("open", guest.first_line, vmm)
            for command in (("detach", "web-7", "imc"), ("vm", "delete", "web-7")):
                message = self.daemon.ctl(*command, code=1).stderr.decode()
                self.assertIn("open", message)
                self.assertEqual(sha256(b"hive"), guest.do("read"), vmm)
            warning = self.daemon.ctl("detach", "web-7", "imc", "--force").stderr.decode()
            self.assertIn("firmware", warning)
            self.assertIn("ABORTED", guest.do("read"), vmm)
            guest.finish()
            self.daemon.ctl("attach", "web-7", "imc", "--file", self.daemon.file("h", b"hive"))
            self.assertEqual(b"hive", self.read(vmm=vmm))
        deleted = self.daemon.ctl("vm", "delete", "web-7", "--force").stderr.decode()
        self.assertIn("firmware", deleted)
        self.daemon.ctl("vm", "get", "web-7", code=3)

    def test_a_second_vmm_is_refused_while_the_first_is_connected(self):
        self.start_with(b"hive")
        guest = self.daemon.held_guest("web-7", "firmware")
        self.daemon.guest("web-7", "read", "imc.hiv", timeout=5, code=4)
        self.assertEqual(sha256(b"hive"), guest.do("read"))
        self.assertEqual(0, guest.finish())
        self.assertEqual(b"hive", self.read())


class Provisioning(EndToEnd):
    def sample(self, name):
        return str(ROOT / "tools" / "samples" / f"{name}.reg")

    def provision(self, *arguments):
        done = self.daemon.ctl("imc", "provision", "web-7", *arguments)
        self.assertEqual(b"", done.stderr)

    def test_each_guest_reads_the_hive_that_a_sample_makes(self):
        self.daemon.start()
        self.daemon.ctl("vm", "create", "web-7")
        self.provision(self.sample("computer-name-and-time-zone"))
        built = self.daemon.folder / "built.hiv"
        self.daemon.ctl("imc", "build", self.sample("computer-name-and-time-zone"), "--output",
                        str(built))
        for profile, vmm in GUESTS:
            self.assertEqual(built.read_bytes(), self.read(profile=profile, vmm=vmm), vmm)

    def test_the_same_settings_change_nothing_also_after_a_kill_and_others_swap(self):
        self.daemon.start()
        self.daemon.ctl("vm", "create", "web-7")
        self.provision(self.sample("agent-service"))
        before = self.attachment()
        self.daemon.kill()
        self.daemon.start()
        self.provision(self.sample("agent-service"))
        self.assertEqual(before, self.attachment())
        guest = self.daemon.held_guest("web-7", "firmware")
        read = guest.do("read")
        self.provision(self.sample("crash-dumps"))
        self.assertEqual(read, guest.do("read"))
        self.assertNotEqual(before["etag"], self.attachment()["etag"])
        self.assertEqual(0, guest.finish())
        self.assertEqual(self.attachment()["file"]["blob"], "blobs/" + sha256(self.read()))

    def test_what_is_no_hive_is_served_with_a_warning_and_refused_when_strict(self):
        self.daemon.start()
        self.daemon.ctl("vm", "create", "web-7")
        path = self.daemon.file("no.hiv", b"no hive")
        self.daemon.ctl("attach", "web-7", "imc", "--file", path, "--strict", code=1)
        done = self.daemon.ctl("attach", "web-7", "imc", "--file", path)
        self.assertIn(b"warning: not a valid hive", done.stderr)
        self.assertEqual(b"no hive", self.read())


class Lasting(EndToEnd):
    def test_what_was_acknowledged_survives_a_kill(self):
        data = pattern(100_000)
        self.start_with(data)
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(data, self.read())
        self.daemon.ctl("vm", "delete", "web-7")
        self.daemon.kill()
        self.daemon.start()
        self.daemon.ctl("vm", "get", "web-7", code=3)

    def test_content_that_the_disk_lost_is_mended_by_the_same_upload(self):
        data = pattern(50_000)
        self.start_with(data)
        self.daemon.stop()
        blob = next(p for p in self.daemon.state.rglob(sha256(data)) if p.is_file())
        blob.chmod(0o600)
        blob.write_bytes(data[:100])
        self.daemon.start()
        self.daemon.guest("web-7", "read", "imc.hiv", code=1)
        self.daemon.ctl("swap", "web-7", "imc", "--file", self.daemon.file("again", data))
        self.assertEqual(data, self.read())

    def test_a_clean_stop_removes_the_sockets_and_a_start_serves_again(self):
        self.start_with(b"hive")
        self.assertEqual(0, self.daemon.stop())
        self.assertFalse(os.path.exists(self.daemon.link("web-7")))
        self.assertFalse((self.daemon.run / "admin.sock").exists())
        self.daemon.start()
        self.assertEqual(b"hive", self.read())

    def test_a_second_daemon_is_refused_and_the_first_goes_on(self):
        self.start_with(b"hive")
        second = subprocess.run(self.daemon.command(), capture_output=True, timeout=120,
                                check=False)
        self.assertEqual(1, second.returncode, second.stderr)
        self.assertIn(str(self.daemon.state), second.stderr.decode())
        self.assertEqual(b"hive", self.read())

    def test_nobody_else_can_look_at_the_state(self):
        self.start_with(b"hive")
        self.assertEqual(0o700, stat.S_IMODE(self.daemon.state.stat().st_mode))
        for path in (self.daemon.run / "admin.sock", pathlib.Path(self.daemon.link("web-7"))):
            self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode), path)
        blobs = [p for p in self.daemon.state.rglob(sha256(b"hive")) if p.is_file()]
        self.assertEqual([0o400], [stat.S_IMODE(p.stat().st_mode) for p in blobs])
        for path in self.daemon.state.rglob("*"):
            self.assertEqual(0, stat.S_IMODE(path.stat().st_mode) & 0o077, path)


class BadCalls(EndToEnd):
    def refused(self, *arguments, code=1):
        done = self.daemon.ctl(*arguments, code=code)
        self.assertEqual(b"", done.stdout)
        return done.stderr.decode()

    def test_each_is_refused_with_what_to_do(self):
        self.start_with(b"hive")
        hive = self.daemon.file("h", b"h")
        self.assertIn("nobody", self.refused("attach", "nobody", "imc", "--file", hive, code=3))
        self.assertIn("web-7", self.refused("vm", "create", "web-7"))
        self.assertIn("swap it", self.refused("attach", "web-7", "imc", "--file", hive))
        self.refused("vm", "create", "no spaces")
        self.refused("vm", "create", "-dash", code=2)
        self.assertIn("user", self.refused("vm", "create", "nobodys", "--owner", "4294967295"))
        self.refused("vm", "create", "x" * 64)
        self.refused("vm", "get", "nobody", code=3)
        self.refused("detach", "web-7", "boot", code=3)
        self.refused("swap", "web-7", "boot", "--file", hive, code=3)
        self.refused("inspect", "vms/nobody", code=3)
        self.refused("swap", "web-7", "imc", "--file", self.daemon.file("empty", b""))
        large = self.daemon.file("large", bytes((16 << 20) + 1))
        self.assertIn("16", self.refused("swap", "web-7", "imc", "--file", large))
        self.refused("swap", "web-7", "imc", "--file", str(self.daemon.folder / "absent"))
        self.assertEqual(b"hive", self.read())

    def test_usage_and_reach_have_their_own_exit_codes(self):
        for tool in ("vmbfsd", "vmbfsctl", "vmbfs-guest"):
            for option in ("--version", "--help"):
                done = subprocess.run([binary(tool), option], capture_output=True, check=False)
                self.assertEqual(0, done.returncode, f"{tool} {option}")
                self.assertNotEqual(b"", done.stdout)
            done = subprocess.run([binary(tool), "--no-such-option"], capture_output=True,
                                  check=False)
            self.assertEqual((2, b""), (done.returncode, done.stdout), tool)
        self.daemon.ctl("vm", "list", code=4)
        done = self.daemon.guest("absent", "read", "imc.hiv", timeout=1, code=4)
        self.assertEqual(b"", done.stdout)

    def test_a_link_path_that_is_too_long_is_refused_with_both_lengths(self):
        self.daemon.run = self.daemon.folder / ("r" * 60)
        self.daemon.start()
        message = self.refused("vm", "create", "n" * 60)
        length = len(self.daemon.link("n" * 60))
        self.assertIn(str(length), message)
        self.assertIn("107", message)


class Outputs(EndToEnd):
    def test_get_shows_wanted_content_in_each_form(self):
        self.start_with(b"hive")
        text = self.daemon.ctl("vm", "get", "web-7").stdout.decode()
        self.assertIn(sha256(b"hive"), text)
        as_yaml = self.daemon.ctl("-o", "yaml", "vm", "get", "web-7").stdout.decode()
        self.assertIn(sha256(b"hive"), as_yaml)
        attachment = self.attachment()
        self.assertEqual("blobs/" + sha256(b"hive"), attachment["file"]["blob"])
        self.assertEqual("4", attachment["sizeBytes"])
        self.assertFalse(attachment.get("active"))

    def test_inspect_shows_the_live_tree(self):
        self.start_with(b"hive")
        self.read()
        tree = self.daemon.ctl("inspect", "vms/web-7", "--depth", "4").stdout.decode()
        for part in ("link", "bus", "channels", "devices", "bytes_read"):
            self.assertIn(part, tree)
        self.assertRegex(tree, r"last_error:\s*\n", "a guest that went away is no error")
        shallow = self.daemon.ctl("inspect", "--depth", "1").stdout.decode()
        self.assertNotIn("bytes_read", shallow)


if __name__ == "__main__":
    unittest.main(verbosity=2)
