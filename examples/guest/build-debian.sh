#!/bin/bash
# Builds a whole Debian with systemd, its own initramfs and its own boot menu, as bare volumes of several file systems.
#
#   build-debian.sh OUT_PREFIX FILE_SYSTEM(ext4|xfs|btrfs)...
#
# Writes OUT_PREFIX.FILE_SYSTEM for each, and OUT_PREFIX.json with what the guest is going to report: it prints the same line as
# the small guest does when it has come up, and powers off. Needs root (mmdebstrap), some 300 MiB of downloads and several minutes.
set -euo pipefail

out=$1
shift
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
uuid=7c2e9f5f-6d2b-4a1f-8b64-646562696e31
size_mib=1600

work=$(mktemp -d)
# What is still mounted is not removed.
trap 'if mountpoint --quiet "$work/mount"; then umount "$work/mount"; fi; rm -rf "$work"' EXIT
root=$work/root

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
mmdebstrap --quiet --variant=minbase --mode=root --include=systemd-sysv,linux-image-amd64,initramfs-tools,lvm2,xfsprogs,btrfs-progs \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$root"
version=$(ls "$root/lib/modules")

echo veneer-guest >"$root/etc/hostname"
echo "UUID=$uuid / auto defaults 0 1" >"$root/etc/fstab"
# A machine that boots without a network of its own need not wait for one.
cat >"$root/etc/systemd/system/veneer-report.service" <<'END'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/veneer-report
StandardOutput=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
END
mkdir -p "$root/usr/local/sbin"
cat >"$root/usr/local/sbin/veneer-report" <<'END'
#!/bin/sh
set -- $(findmnt --noheadings --output SOURCE,FSTYPE /)
payload=$(sha256sum /payload.bin | cut -d ' ' -f 1)
echo
echo "VENEER-GUEST-READY root=$1 fs=$2 payload=$payload"
grep -qw veneer.hold /proc/cmdline /sys/class/dmi/id/product_serial || systemctl poweroff
END
chmod 755 "$root/usr/local/sbin/veneer-report"
ln -s ../veneer-report.service "$root/etc/systemd/system/multi-user.target.wants/veneer-report.service"
# A login there would hang the serial port up, and the report be lost.
ln -s /dev/null "$root/etc/systemd/system/serial-getty@ttyS0.service"
head -c 8388608 /dev/zero |
  openssl enc -aes-128-ctr -nosalt -K 76656e6565722d6465626961362d3132 -iv 00000000000000000000000000000000 >"$root/payload.bin"

# As Debian's own tool writes it for such a machine, but for menus, fonts and colours.
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<END
if [ -s \$prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
set default="0"
set timeout_style=menu
set timeout=0
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class os {
	load_video
	insmod gzio
	if [ x\$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod part_msdos
	search --no-floppy --fs-uuid --set=root $uuid
	echo 'Loading Linux $version by the menu of the guest ...'
	linux /boot/vmlinuz-$version root=UUID=$uuid ro console=tty0 console=ttyS0,115200 no_timer_check
	initrd /boot/initrd.img-$version
}
END

make_volume() {
  local volume=$work/volume
  rm -f "$volume"
  truncate --size "${size_mib}M" "$volume"
  case $1 in
    ext4) mke2fs -q -t ext4 -U "$uuid" -d "$root" "$volume" ;;
    btrfs) mkfs.btrfs -q -U "$uuid" --rootdir "$root" "$volume" ;;
    xfs)
      mkfs.xfs -q -m "uuid=$uuid" "$volume"
      mkdir -p "$work/mount"
      # The prototypes of mkfs.xfs know neither hard links nor names with spaces.
      mount -o loop,nouuid "$volume" "$work/mount"
      cp -a "$root/." "$work/mount/"
      umount "$work/mount"
      ;;
    *) echo "unknown file system '$1': ext4, xfs or btrfs" >&2 && exit 2 ;;
  esac
  cp --sparse=always "$volume" "$out.$1.tmp.$$" && mv "$out.$1.tmp.$$" "$out.$1"
}

for file_system in "$@"; do make_volume "$file_system"; done
payload_sha256=$(sha256sum <"$root/payload.bin" | cut -d ' ' -f 1)
printf '{ "kernelVersion": "%s", "payloadSha256": "%s" }\n' "$version" "$payload_sha256" >"$out.json"
