"""The emulator's own modules import each other by file name."""

from __future__ import annotations

import sys

from sandbox import emulator_process

sys.path.append(str(emulator_process.LAUNCHER.parent))
