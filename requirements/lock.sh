#!/bin/sh
# Resolve the hashed locks; they name no registry. Usage: requirements/lock.sh UV [EXTRA-UV-ARGUMENT ...]
set -eu
uv=$1
shift
resolve() {
    "$uv" pip compile pyproject.toml --group test --group lint --universal --python-version 3.11 \
        --generate-hashes --no-header --no-emit-index-url --quiet "$@"
}
resolve -o requirements/dev.txt "$@"
resolve -c requirements/dev.txt --extra torch -o requirements/torch.txt "$@"
grep '^uv==' requirements/dev.txt | cut -d' ' -f1 |
    "$uv" pip compile - --universal --generate-hashes --no-header --no-emit-index-url --quiet -o requirements/uv.txt "$@"
