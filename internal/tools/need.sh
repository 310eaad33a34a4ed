#!/usr/bin/env bash
# need.sh PACKAGE:COMMAND... : installs the Debian packages whose commands are
# missing when run as root, else says which to install.
set -euo pipefail

missing=()
for pair in "$@"; do
	command -v "${pair#*:}" >/dev/null || missing+=("${pair%%:*}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "missing on this machine: ${missing[*]}; install with: sudo apt-get install ${missing[*]}" >&2
	exit 1
fi
echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
# A fresh machine has no package lists; a used one does not need them again.
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || {
	apt-get update -qq >&2
	apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}
