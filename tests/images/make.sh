#!/bin/sh
# The images that docker-compose.yml and Dockerfile name, made from Debian's packages and PyPI where no registry can be
# reached: `tests/images/make.sh [OVERLAY]`. OVERLAY is a directory that is copied over the Python image's root, such as
# what pip needs on this machine. Needs root, mmdebstrap and Docker.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
overlay=${1:-}
python=python:3.11.13-slim-bookworm
if ! docker image inspect "$python" > /dev/null 2>&1; then
	set -- --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv \
		--customize-hook='ln -s python3 "$1/usr/bin/python"; rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
	[ -z "$overlay" ] || set -- "$@" --customize-hook="cp -a '$overlay/.' \"\$1/\""
	mmdebstrap "$@" bookworm - | docker import - "$python"
fi
docker build --network=host -t postgres:15.13-bookworm "$here/postgres"
docker build --network=host -t chrislusf/seaweedfs:4.48 "$here/seaweedfs"
