# Makes what the emulated host and its guests boot from, of Debian's kernels and our
# programs. Sourced by tools/test-real-guest; needs no root.

# shellcheck shell=bash

# The kernels, by what Debian calls the newest of each line.
declare -A kernel_packages=([6.12]=linux-image-6.12-cloud-amd64 [6.1]=linux-image-cloud-amd64)
host_kernel=6.12

# fetch_kernel LINE FOLDER: unpacks the newest kernel of a line into FOLDER, unless it is there.
fetch_kernel() {
  local package folder=$2
  package=$(apt-cache depends "${kernel_packages[$1]}" |
    sed -n 's/^ *|\{0,1\}Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  [ -n "$package" ] || { echo "images: apt knows no ${kernel_packages[$1]}" >&2; return 1; }
  [ "$(cat "$folder/package" 2>/dev/null)" != "$package" ] || return 0
  rm -rf "$folder"
  mkdir -p "$folder"
  (cd "$folder" && apt-get download "$package" >/dev/null 2>"$folder/errors") ||
    { cat "$folder/errors" >&2; return 1; }
  dpkg-deb -x "$folder"/*.deb "$folder" && rm "$folder"/*.deb && echo "$package" >"$folder/package"
}

# add_module KERNEL-FOLDER NAME TO
add_module() {
  local module
  module=$(find "$1/lib/modules" -name "$2.ko*")
  case $module in
    *.xz) xz -dc "$module" >"$3/$2.ko" ;;
    *.ko) cp "$module" "$3/$2.ko" ;;
    *) echo "images: $1 has no module $2" >&2; return 1 ;;
  esac
}

# pack FOLDER FILE: a folder as an initial RAM file system, its files root's.
pack() { (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$2"; }

# make_guest KERNEL-FOLDER PROGRAMS SCRATCH FILE
make_guest() {
  local root=$3/guest-root module
  rm -rf "$root"
  mkdir -p "$root"/{bin,modules,proc,sys,dev,tmp}
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$2/tests/real_guest/uio-guest" "$2/tests/real_guest/kexec-now" "$root/bin/"
  install -m 755 tests/real_guest/guest/init "$root/init"
  install -m 644 tests/real_guest/guest/words "$root/words"
  for module in hv_vmbus uio uio_hv_generic; do add_module "$1" "$module" "$root/modules" || return; done
  pack "$root" "$4"
}

# make_host KERNELS PROGRAMS SCRATCH FILE: everything, the guests' images included.
make_host() {
  local root=$3/host-root images=$3/host-root/images program line module
  rm -rf "$root"
  mkdir -p "$root"/{bin,modules,proc,sys,dev,tmp,programs,libraries,real_guest,images} "$3/kexec/kexec"
  cp "$(command -v busybox)" "$root/bin/busybox"
  install -m 755 tests/real_guest/host/init "$root/init"
  cp -r tests/real_guest/host tests/real_guest/scenarios "$root/real_guest/"
  for module in irqbypass kvm kvm-amd; do
    add_module "$1/$host_kernel" "$module" "$root/modules" || return
  done
  for program in tools/vmbfsd/vmbfsd tools/vmbfsctl/vmbfsctl tests/real_guest/vmm/test-vmm; do
    install -m 755 "$2/$program" "$root/programs/"
    # Each library goes where the loader, in /lib64 by its name, is told to look.
    ldd "$2/$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' |
      xargs -r cp -L --no-preserve=mode -u -t "$root/libraries" || return
  done
  mkdir -p "$root/lib64"
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
  for line in "${!kernel_packages[@]}"; do
    cp "$1/$line"/boot/vmlinuz-* "$images/vmlinuz-$line"
    make_guest "$1/$line" "$2" "$3" "$images/guest-$line.cpio" || return
  done
  # A guest that carries the kernel it changes to.
  cp "$images/vmlinuz-6.12" "$3/kexec/kexec/vmlinuz"
  cp "$images/guest-6.12.cpio" "$3/kexec/kexec/initrd"
  pack "$3/kexec" "$3/kexec.cpio"
  cat "$images/guest-6.12.cpio" "$3/kexec.cpio" >"$images/kexec.cpio"
  # Content that looks like nothing, and is the same each time.
  openssl enc -aes-128-ctr -K 00 -iv 00 -nosalt </dev/zero 2>/dev/null |
    head -c $((64 << 20)) >"$images/64-mib"
  pack "$root" "$4"
}
