#!/bin/bash
# Downloads the Debian packages that the example guest is made of, and prints their paths, one on each line.
#
#   fetch-packages.sh FLAVOUR(cloud|generic) CACHE_DIR
#
# What the folder already holds is used as it is, without asking the archive: delete it to get newer packages.
# Needs no root. Two runs at the same time wait for each other.
set -euo pipefail

flavour=$1
mkdir -p "$2"
cache=$(cd "$2" && pwd)
list=$cache/$flavour.list

case $flavour in
  cloud) metapackage=linux-image-cloud-amd64 ;;
  generic) metapackage=linux-image-amd64 ;;
  *) echo "unknown flavour '$flavour': cloud or generic" >&2 && exit 2 ;;
esac

exec 9>"$cache/.lock"
flock 9

complete() {
  local name
  [[ -s $list ]] || return 1
  while read -r name; do [[ -f $cache/$name ]] || return 1; done <"$list"
}

# The download is ours, not the system's: it must not be handed to the user _apt, who may not write here.
apt_options=(-o APT::Sandbox::User=root)

# Prints the package with the kernel itself, e.g. linux-image-6.1.0-56-cloud-amd64.
kernel_package() {
  # The whole input is read (no "exit"): apt-cache must not die of a closed pipe.
  apt-cache "${apt_options[@]}" depends "$metapackage" 2>/dev/null |
    awk '/Depends: linux-image-[0-9]/ && !found { found = $2 } END { print found }'
}

download() {
  local kernel
  kernel=$(kernel_package)
  [[ -n $kernel ]] && (cd "$work" && apt-get "${apt_options[@]}" -qq download "$kernel" busybox-static)
}

if ! complete; then
  work=$(mktemp -d "$cache/.download-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  if ! download 2>"$work/log"; then
    # The system's package lists are absent or out of date: fetch lists of our own rather than touch the system's.
    mkdir -p "$cache/.apt/lists/partial" "$cache/.apt/cache/archives/partial"
    apt_options+=(-o "Dir::State::lists=$cache/.apt/lists" -o "Dir::Cache=$cache/.apt/cache")
    if ! { apt-get "${apt_options[@]}" -qq update && download; } 2>>"$work/log"; then
      cat "$work/log" >&2
      echo "cannot download $metapackage and busybox-static from the Debian archive" >&2
      exit 1
    fi
  fi
  (cd "$work" && printf '%s\n' *.deb) >"$work/list"
  mv "$work"/*.deb "$cache/"
  mv "$work/list" "$list"
fi

sed "s|^|$cache/|" "$list"
