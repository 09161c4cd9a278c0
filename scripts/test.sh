#!/usr/bin/env bash
# Lint, types and the test suite; installs what they need. Needs no network after the install.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment "[test]"

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
