"""Imported last by the process that daemons of tests are forked from: what it has made by then no daemon's garbage
collection looks through, nor copies page by page."""

from __future__ import annotations

import gc

gc.collect()
gc.freeze()
