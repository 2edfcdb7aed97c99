#!/bin/sh
# Fill the environment of an image from a hashed lock. Usage: install.sh LOCK (in a build stage of components/Dockerfile)
set -eu
uv pip sync --quiet --require-hashes "$1"
cd /opt/venv
# Tests of libraries, headers and Feast's web page: a fifth of the bytes, and nothing of it runs here.
find . -type d -name tests -prune -exec rm -rf {} +
rm -rf lib/python3.*/site-packages/pyarrow/include lib/python3.*/site-packages/feast/ui/build \
    lib/python3.*/site-packages/feast/ui/src lib/python3.*/site-packages/feast/ui/public
# One fixed time, so that equal content makes an equal layer on every machine.
find . -exec touch --no-dereference --date=@0 {} +
