"""Run the seam canaries and the neutrality tests on other Ultralytics releases.

    python scripts/check_upstream.py 8.4.180 8.4.190

Each release is installed without its dependencies into a temporary folder that shadows the installed one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/ultra/test_canary.py",
    "tests/ultra/test_criterion.py",
    "tests/ultra/test_assigner.py",
    "tests/ultra/test_sources.py",
    "tests/ultra/test_calibrated.py",
    "tests/ultra/test_maps.py",
    "tests/ultra/test_scaling.py",
    "tests/ultra/test_predictor.py",
    "tests/ultra/test_export.py",
    "tests/ultra/test_validator.py",
    "tests/ultra/test_epochs.py",
    "tests/ultra/test_lost.py",
    "tests/parity/test_neutrality.py",
    "tests/parity/test_onnx.py",
)


def main() -> int:
    failed = []
    for version in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder]
            subprocess.run([*pip, f"ultralytics=={version}"], check=True)
            path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
            print(f"\nultralytics {version}", flush=True)
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *TESTS], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
            )
            failed += [version] if done.returncode else []
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall releases pass")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
