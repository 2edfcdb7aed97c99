#!/bin/sh
# Fill the environment of an image from a hashed lock. Usage: install.sh LOCK (in a build stage of components/Dockerfile)
set -eu
uv pip sync --quiet --require-hashes "$1"
cd /opt/venv/lib/python3.*/site-packages
# Tests of the large libraries, headers and Feast's web page: a tenth of the bytes, and nothing of it runs here.
# By name: in some packages, such as Evidently, a module called `tests` is part of the library.
for package in dask ibis matplotlib numpy pandas pyarrow scipy sklearn statsmodels; do
    [ ! -d "$package" ] || find "$package" -type d -name tests -prune -exec rm -rf {} +
done
# Descriptions of four hundred AWS services, of which S3 is spoken to.
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts -exec rm -rf {} +
# Arrow's RPC framework, a fifth of pyarrow, which only Feast's offline server speaks.
rm -f pyarrow/_flight.*.so pyarrow/libarrow_flight.so.* pyarrow/libarrow_python_flight.so*
rm -rf pyarrow/include feast/ui/build feast/ui/src feast/ui/public
# One fixed time, so that equal content makes an equal layer on every machine.
find /opt/venv -exec touch --no-dereference --date=@0 {} +
