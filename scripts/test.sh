#!/usr/bin/env bash
# Lint, types and the test suite; installs what they need. Needs no network after the install.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
make_environment "[test]"

# The pages are tested in a real browser. Where there is none and none can be had, those tests say so and are skipped.
if ! { command -v chromium && command -v chromedriver; } >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium for the tests of the pages" >&2
    { timeout 120 apt-get update -qq && timeout 600 apt-get install -y -qq --no-install-recommends chromium chromium-driver; } \
        >/dev/null 2>&1 || echo "Chromium can't be installed here: the tests in it are skipped" >&2
fi

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# A process for each core, with one thread of arithmetic; what several threads do is tested by tests that ask for them.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal "$@"
