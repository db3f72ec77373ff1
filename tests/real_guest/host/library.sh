# What scenarios are written with: a daemon, its VMs, and guests that do as told.
#
# A scenario is a file of scenarios/, run in a shell of its own with `set -eu`; what
# fails ends it. Names of VMs begin with the scenario's. Sourced by host/run.

# shellcheck shell=sh
: "${folder:?}" "${images:?}"

export VMBFS_SERVER=unix:$folder/run/admin.sock

# What a kernel does for its safety or for hardware's sake takes long in an emulator.
guest_options="console=ttyS0 quiet mitigations=off nokaslr cryptomgr.notests panic=-1"

ctl() { vmbfsctl "$@"; }
digest() { sha256sum <"$1" | cut -d' ' -f1; }
die() {
  echo "  $*" >&2
  exit 1
}
same() { [ "$1" = "$2" ] || die "${3:-compared}: \"$1\" is not \"$2\""; }

# within SECONDS COMMAND…: repeats it until it succeeds.
within() {
  local tries=$(($1 * 10))
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || die "not in time: $*"
    sleep 0.1
  done
}

daemon_start() {
  vmbfsd --state-dir "$folder/state" --runtime-dir "$folder/run" 2>"$folder/daemon.log" &
  echo $! >"$folder/daemon.pid"
  within 60 grep -q '^vmbfsd: ready$' "$folder/daemon.log"
}

# Two hives of some 60 KiB, so that reading one takes several messages.
make_hive() {
  {
    printf 'Windows Registry Editor Version 5.00\r\n\r\n'
    printf '[HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\Services\\Sample\\Parameters]\r\n'
    seq 500 | sed 's|.*|"&"="value & of the '"$1"' hive"|'
  } >"$folder/$1.reg"
  vmbfsctl imc build "$folder/$1.reg" --output "$folder/$1.hiv" >/dev/null
}
make_hives() {
  make_hive first
  make_hive second
}

# vm NAME [OPTION…]: a VM with the first hive attached.
vm() {
  ctl vm create "$@" >/dev/null
  ctl attach "$1" imc --file "$folder/first.hiv" >/dev/null
}

# boot NAME KERNEL PROCESSORS [OPTION…]: starts a VM's VMM and guest, and goes on.
boot() {
  local name=$1 kernel=$2 processors=$3
  shift 3
  mkfifo "$folder/$name.in"
  # Somebody who holds it open for writing, so that a guest's console never ends.
  sleep 3600 >"$folder/$name.in" &
  echo $! >"$folder/$name.holder"
  test-vmm --link "$folder/run/vm/$name.sock" --name "$name" --memory 320 --cpus "$processors" \
    --kernel "$images/vmlinuz-$kernel" --initrd "$images/guest-$kernel.cpio" \
    --cmdline "$guest_options" "$@" \
    <"$folder/$name.in" >"$folder/$name.console" 2>"$folder/$name.vmm" &
  echo $! >"$folder/$name.pid"
  echo 0 >"$folder/$name.commands"
}

# ready NAME [TIMES]: waits until its guest takes commands, for the first time or a later one.
booted() { [ "$(grep -c '^guest: ready' "$folder/$1.console")" -ge "$2" ]; }
ready() { within 240 booted "$1" "${2:-1}"; }

# tell NAME COMMAND…: has the guest do it, and goes on.
tell() {
  local name=$1 number
  shift
  number=$(($(cat "$folder/$name.commands") + 1))
  echo "$number" >"$folder/$name.commands"
  echo "$number $*" >"$folder/$name.in"
}

# answer NAME: waits for the last command, prints what the guest printed, gives its status.
answered() { grep -q "^done $2 " "$folder/$1.console"; }
answer() {
  local number
  number=$(cat "$folder/$1.commands")
  within 240 answered "$1" "$number"
  tr -d '\r' <"$folder/$1.console" | awk -v number="$number" '
    /^done / || /^guest: ready/ {
      if ($2 == number) { printf "%s", text; exit }
      text = ""
      next
    }
    { text = text $0 "\n" }'
  return "$(tr -d '\r' <"$folder/$1.console" | sed -n "s/^done $number //p")"
}

# guest NAME COMMAND…: both.
guest() {
  tell "$@"
  answer "$1"
}

# guest_reads NAME DEVICE FILE-NAME FILE: a guest reads what FILE holds.
guest_reads() { same "$(guest "$1" "read_file $2 $3")" "$(digest "$4")" "$1 reads $3"; }

# field PATH: a value of the daemon's inspect tree.
field() { ctl inspect "$1" --depth 0 2>/dev/null | sed 's/^[^:]*: *//'; }

# What the daemon knows of a device: `vmbfsctl vm get` shows it as "attached, channel open".
channel_open() { ctl vm get "$1" | grep -q "^$2: .*channel open"; }
channel_closed() { ctl vm get "$1" | grep -q "^$2: .*channel closed"; }
