#!/bin/bash
# Boots a guest in QEMU straight from an image backup. The image stays as it is: what the guest writes is thrown away at the end.
#
#   bash examples/boot-from-image.sh                       the demo guest: built from Debian packages, backed up, booted
#   bash examples/boot-from-image.sh IMAGE [OPTION...]     an image of a whole disk; OPTIONS go to QEMU, e.g. -m 4096 -display gtk
#
# BUS=ide|virtio chooses the disk's controller (default: ide for IMAGE, virtio for the demo guest).
# Without a display the guest's serial console is on this terminal; Ctrl-A X ends QEMU.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

image=
if (($# > 0)); then
  image=$(realpath "$1")
  shift
fi
cd "$here"
bash scripts/setup.sh --run
veneer() { node bin/veneer.mjs "$@"; }
# The Node of this checkout, which runs TypeScript as it is.
typescript() { node_modules/.bin/node --input-type=module --eval "$1"; }

home=$(cd "$(mktemp -d)" && pwd -P)
disks=$home/disks
cleanup() {
  if mountpoint -q "$disks"; then veneer unmount --lazy "$disks"; fi
  rm -rf "$home"
}
trap cleanup EXIT
mkdir "$home/plugins" "$disks"

bus=${BUS:-ide}
if [[ -z $image ]]; then
  bus=${BUS:-virtio}
  disk=$(typescript '
    import { buildGuestDisk } from "./examples/guest/guest.ts";
    const folders = { cacheDir: ".cache/packages", outDir: ".cache/guest" };
    console.log((await buildGuestDisk({ flavour: "cloud", ...folders })).diskPath);')
  image=$home/demo.spf
  veneer image create "$disk" "$image"
fi

# A plugin file in a folder of its own; --allow-path lets it point to where the image lies.
veneer plugin create "$image" "$home/plugins/vm.vhdx"
veneer mount --allow-path "$(dirname "$image")" "$home/plugins" "$disks"

# The mounted file is read-only: an overlay takes the writes.
qemu-img create -q -f qcow2 -F vhdx -b "$disks/vm.vhdx" "$home/overlay.qcow2"
accelerator=$(typescript '
  import { probeAccelerator } from "./examples/guest/accelerator.ts";
  console.log((await probeAccelerator()).accelerator);')
if [[ $accelerator == kvm ]]; then cpu=host; else cpu=max; fi

# thread-pool-max: a mount through libfuse 2 becomes slow after more than about ten concurrent requests.
qemu-system-x86_64 -machine pc -accel "$accelerator" -cpu "$cpu" -m 1024 -no-reboot -display none -serial mon:stdio \
  -object main-loop,id=main-loop,thread-pool-max=8 \
  -drive "file=$home/overlay.qcow2,format=qcow2,if=$bus,aio=threads" "$@"

veneer status "$disks"
