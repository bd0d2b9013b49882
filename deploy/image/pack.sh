#!/bin/sh
# Makes the image of digestry without a container engine, as deploy/Dockerfile does with one:
#
#   make dist
#   deploy/image/pack.sh docker.io/library/python@sha256:… dist/digestry-*.whl registry.example.com/digestry:1
#
# The base is any image that has Python 3.11 or later as `python3`. Upon it comes one layer with the packages of
# requirements/image.txt and the wheel. The same base and wheel make the same digest. Words after the name are options of
# `digestry pack`, such as --push. PIP and DIGESTRY name the programs. It needs GNU tar, and `unshare` to compile the packages.
set -eu

if [ $# -lt 3 ]; then
    echo "usage: $0 BASE WHEEL NAME [OPTION OF digestry pack]…" >&2
    exit 2
fi
base=$1 wheel=$2 name=$3
shift 3
here=$(cd "$(dirname "$0")/../.." && pwd)
digestry=${DIGESTRY:-digestry}
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
root=$work/root layer=$work/layer
umask 022

$digestry unpack "$base" "$root" --no-same-owner >"$work/digest"
python=
for found in "$root"/usr/bin/python3.?? "$root"/usr/local/bin/python3.??; do
    [ ! -x "$found" ] || python=${found#"$root"}
done
[ -n "$python" ] || { echo "$0: $base has no python3" >&2; exit 2; }
version=${python##*python}
machine=$(uname -m)

# For the Python of the base, which may be another one than that of this machine.
install() {
    ${PIP:-python3 -m pip} --disable-pip-version-check install --quiet --no-compile --target "$layer/opt/digestry" \
        --implementation cp --python-version "$version" --only-binary=:all: \
        --platform "manylinux_2_28_$machine" --platform "manylinux2014_$machine" --platform "manylinux_2_17_$machine" "$@"
}
install --require-hashes --requirement "$here/requirements/image.txt"
rm -rf "$layer/opt/digestry/bin"
# By its name: else its directory would be noted beside it, and be a part of the digest.
release=$(basename "$wheel" | cut -d- -f2)
install --no-deps --no-index --find-links "$(dirname "$wheel")" "digestry==$release"
rm -rf "$layer/opt/digestry/bin"
cp "$here/deploy/image/healthcheck.py" "$layer/opt/digestry/healthcheck.py"
mkdir -p "$layer/usr/local/bin" "$layer/var/lib/digestry"
cp "$here/deploy/image/digestry" "$layer/usr/local/bin/digestry"

# Never compared with the source, whose times the image does not keep. Without it the image starts slower.
mkdir -p "$root/opt"
mv "$layer/opt/digestry" "$root/opt/digestry"
unshare --map-root-user chroot "$root" "$python" -m compileall -q --invalidation-mode unchecked-hash /opt/digestry ||
    echo "$0: the packages could not be compiled" >&2
mv "$root/opt/digestry" "$layer/opt/digestry"

pack_files() {
    tar -C "$layer" --format=gnu --sort=name --numeric-owner --mtime="@${SOURCE_DATE_EPOCH:-0}" "$@"
}
pack_files --owner=0 --group=0 --mode=u=rwX,go=rX -cf "$work/layer.tar" opt/digestry
pack_files --owner=0 --group=0 --mode=755 -rf "$work/layer.tar" usr/local/bin/digestry
pack_files --owner=10001 --group=10001 --mode=700 -rf "$work/layer.tar" var/lib/digestry

$digestry pack "$work/layer.tar" --base "$base" --tag "$name" --compress zstd --user 10001:10001 --expose 5000/tcp \
    --entrypoint digestry --cmd 'serve --config /etc/digestry/registry.toml' \
    --health-cmd 'python3 /opt/digestry/healthcheck.py 127.0.0.1:5000' \
    --label org.opencontainers.image.title=digestry "$@"
