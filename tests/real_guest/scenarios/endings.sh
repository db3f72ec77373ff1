# How a VMM ends: a triple fault resets the machine, and the daemon's death is exit status 3.
own=$folder/endings-daemon
mkdir -p "$own"

# A kernel that has no interrupt table (lidt of the zeros at address 0) and then an undefined
# instruction: the header of a real one, with one sector of setup code, and 64-bit code at 0x200.
{
  head -c 497 "$images/vmlinuz-6.12"
  printf '\001'
  head -c 1024 "$images/vmlinuz-6.12" | tail -c 526
  head -c 512 /dev/zero
  printf '\017\001\034\045\000\000\000\000\017\013'
  head -c 4096 /dev/zero
} >"$own/faults.kernel"
ctl vm create endings-fault >/dev/null
boot endings-fault 6.12 1 --kernel "$own/faults.kernel"
faulted_twice() { [ "$(grep -c 'triple fault' "$folder/endings-fault.vmm")" -ge 2 ]; }
within 60 faulted_twice
kill -0 "$(cat "$folder/endings-fault.pid")" || die "the VMM ended"

# A daemon of its own, since others need theirs.
first=$folder/first.hiv
folder=$own
VMBFS_SERVER=unix:$folder/run/admin.sock
daemon_start
ctl vm create endings-lost >/dev/null
ctl attach endings-lost imc --file "$first" >/dev/null
boot endings-lost 6.12 1
ready endings-lost
guest_reads endings-lost imc imc.hiv "$first"
kill -9 "$(cat "$folder/daemon.pid")"
status=0
wait "$(cat "$folder/endings-lost.pid")" || status=$?
kill "$(cat "$folder/endings-lost.holder")"
same "$status" 3 "the VMM's exit status"
