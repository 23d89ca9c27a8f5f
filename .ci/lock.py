"""Write constraints.txt: the versions that pip resolves for dia-server, its development tools and Ray.

`make lock` takes the newest versions that pyproject.toml allows; `make lock KEEP=1` keeps the versions in the
file and adds missing packages. Nothing is installed. Only names and versions are written: no package index's
address, and no local part such as `+cpu`.
"""

import json
import subprocess
import sys
from pathlib import Path

FILE = Path("constraints.txt")
HEAD = "# Exact versions of everything that is installed, on every platform that has them; `pip install -c`."


def resolve(*, keep: bool) -> dict[str, str]:
    """Return the version of each package by its name."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--constraint", str(FILE)] if keep else []
    command += ["--report", "-", "--editable", ".[dev,cluster]"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = [package["metadata"] for package in report["install"]]
    return {p["name"]: p["version"].partition("+")[0] for p in packages if p["name"] != "dia-server"}


def main() -> None:
    versions = resolve(keep="--keep" in sys.argv)
    names = sorted(versions, key=str.lower)
    FILE.write_text("\n".join([HEAD, *(f"{name}=={versions[name]}" for name in names)]) + "\n")


if __name__ == "__main__":
    main()
