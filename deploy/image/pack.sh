#!/bin/sh
# Makes the image of digestry without a container engine, by `digestry pack`:
#
#   make dist
#   debootstrap --variant=minbase --include=python3,ca-certificates trixie ROOT     (as root; or any root file system
#   deploy/image/pack.sh ROOT dist/digestry-*.whl registry.example.com/digestry:1    with Python 3.11 or later)
#
# ROOT gets the packages of requirements/image.txt and the wheel, and becomes the image's one layer. The same files make the
# same digest. Words after the name are options of `digestry pack`, such as --push. PIP and DIGESTRY name the programs.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: $0 ROOT WHEEL NAME [OPTION OF digestry pack]…" >&2
    exit 2
fi
root=$1 wheel=$2 name=$3
shift 3
here=$(cd "$(dirname "$0")/../.." && pwd)
python=$(readlink "$root/usr/bin/python3") || { echo "$0: $root has no usr/bin/python3" >&2; exit 2; }
version=${python##*python}
machine=$(uname -m)

# For the Python of ROOT, which may be another one than that of this machine.
install() {
    ${PIP:-python3 -m pip} --disable-pip-version-check install --quiet --no-compile --target "$root/opt/digestry" \
        --implementation cp --python-version "$version" --only-binary=:all: \
        --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" --platform "manylinux_2_17_$machine" "$@"
}

rm -rf "$root/opt/digestry"
install --require-hashes --requirement "$here/requirements/image.txt"
install --no-deps "$wheel"
rm -rf "$root/opt/digestry/bin"
cp "$here/deploy/image/healthcheck.py" "$root/opt/digestry/healthcheck.py"
# An engine mounts its own; an image cannot hold devices.
rm -rf "${root:?}/dev"
mkdir -p "$root/dev" "$root/usr/local/bin" "$root/var/lib/digestry"
cp "$here/deploy/image/digestry" "$root/usr/local/bin/digestry"
chmod 755 "$root/usr/local/bin/digestry"
# Everything in the image is root's: whoever it runs as makes a directory of its own there.
chmod 1777 "$root/var/lib/digestry"
# Never compared with the source, whose times the image does not keep. Without it the image starts slower.
unshare --map-root-user chroot "$root" \
    python3 -m compileall -q --invalidation-mode unchecked-hash /opt/digestry ||
    echo "$0: the packages could not be compiled" >&2

${DIGESTRY:-digestry} pack "$root" --tag "$name" --user 10001:10001 --expose 5000/tcp \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    --entrypoint digestry --cmd 'serve --config /etc/digestry/registry.toml' \
    --label org.opencontainers.image.title=digestry "$@"
