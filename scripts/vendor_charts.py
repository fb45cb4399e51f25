"""Fetches the scripts that reports embed, from the npm registry, with their licences.

    python scripts/vendor_charts.py

Needs npm. Writes agent/report/assets/: D3 and Observable Plot (both ISC), which draw the charts,
and notes their versions and hashes in vendored.json.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "agent" / "report" / "assets"
PACKAGES = {
    "d3": ("7.9.0", "dist/d3.min.js", "d3.min.js"),
    "@observablehq/plot": ("0.6.17", "dist/plot.umd.min.js", "plot.min.js"),
}
"""Version, the file in the package, and what it is called here."""


def fetch(name: str, version: str, inside: str, called: str) -> dict[str, str]:
    """One package's script and licence; what is to be noted of it."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"],
            cwd=folder, check=True, capture_output=True, text=True,
        ).stdout.split()[-1]  # fmt: skip
        with tarfile.open(Path(folder) / packed) as archive:
            script = archive.extractfile(f"package/{inside}")
            licence = archive.extractfile("package/LICENSE")
            assert script is not None
            assert licence is not None
            text = script.read()
            (ASSETS / called).write_bytes(text)
            (ASSETS / f"{called.removesuffix('.min.js')}.LICENSE").write_bytes(licence.read())
    return {"version": version, "file": called, "sha256": hashlib.sha256(text).hexdigest()}


def main() -> None:
    """Fetches all of them."""
    noted = {name: fetch(name, *which) for name, which in PACKAGES.items()}
    (ASSETS / "vendored.json").write_text(json.dumps(noted, indent=1) + "\n")


if __name__ == "__main__":
    main()
