#!/bin/sh
# Resolve the hashed locks; they name no registry. Usage: requirements/lock.sh UV [EXTRA-UV-ARGUMENT ...]
# dev and torch are the environments of people and CI; cpu, gpu and serve are what the images hold, build makes our own
# wheel for them. All agree with dev.
set -eu
uv=$1
shift
resolve() {
    "$uv" pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --quiet "$@"
}
image() {
    resolve --excludes requirements/image-excludes.txt "$@"
}
resolve pyproject.toml --group test --group lint --group build -o requirements/dev.txt "$@"
resolve pyproject.toml --group test --group lint --group build -c requirements/dev.txt --extra torch \
    -o requirements/torch.txt "$@"
image pyproject.toml -c requirements/dev.txt -o requirements/cpu.txt "$@"
image pyproject.toml -c requirements/torch.txt --extra torch --group gpu --excludes requirements/gpu-excludes.txt \
    -o requirements/gpu.txt "$@"
image --group serve -c requirements/dev.txt --excludes requirements/serve-excludes.txt -o requirements/serve.txt "$@"
resolve --group build -c requirements/dev.txt -o requirements/build.txt "$@"
grep '^uv==' requirements/dev.txt | cut -d' ' -f1 |
    "$uv" pip compile - --universal --generate-hashes --no-header --no-emit-index-url --quiet -o requirements/uv.txt "$@"
