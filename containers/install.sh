#!/bin/sh
# The steps that both container recipes share: jawloc from this checkout, for the Python in PATH.
# PIP_* variables reach pip, such as PIP_EXTRA_INDEX_URL for PyTorch's index of CPU builds.
set -eu
cd "$(dirname "$0")/.."
python -m pip install --no-cache-dir '.[postgresql]'
cd / # so that what is installed answers, not the checkout
jawloc --version
jawloc-train --help > /dev/null
jawloc-tune --help > /dev/null
