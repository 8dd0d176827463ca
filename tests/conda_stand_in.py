"""A stand-in for conda, built on uv: it answers the four calls that `mlflow run` makes, with an isolated environment.

`install` lays out a conda home whose `conda` is this file; `etc/profile.d/conda.sh` activates what it has created.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ACTIVATE = """conda() {{
  [ "$1" = activate ] || {{ {python} {script} "$@"; return; }}
  export VIRTUAL_ENV="{home}/envs/$2"
  export PATH="$VIRTUAL_ENV/bin:$PATH"
}}
"""


def install(home: Path) -> Path:
    """Makes `home` a conda home; give it to MLflow as MLFLOW_CONDA_HOME."""
    script = Path(__file__).resolve()
    (home / "bin").mkdir(parents=True)
    conda = home / "bin" / "conda"
    conda.write_text(f'#!/bin/sh\nCONDA_STAND_IN={home} exec {sys.executable} {script} "$@"\n')
    conda.chmod(0o755)
    profile = home / "etc" / "profile.d" / "conda.sh"
    profile.parent.mkdir(parents=True)
    profile.write_text(ACTIVATE.format(python=sys.executable, script=script, home=home))
    return home


def take_bytecode(env: Path) -> None:
    """Links the bytecode of this Python's own packages into a new environment: the same files, and compiling takes a minute.

    Python compares it with the source and compiles anew what does not fit.
    """
    own = Path(sysconfig.get_path("purelib"))
    packages = env / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in own.rglob("__pycache__"):
        target = packages / folder.relative_to(own)
        if not target.parent.is_dir():
            continue
        target.mkdir(exist_ok=True)
        for file in folder.glob("*.pyc"):
            with contextlib.suppress(OSError):
                os.link(file, target / file.name)


def main(arguments: list[str]) -> None:
    envs = Path(os.environ["CONDA_STAND_IN"]) / "envs"
    if arguments == ["--help"]:
        return
    if arguments[:3] == ["env", "list", "--json"]:
        print(json.dumps({"envs": [str(path) for path in envs.glob("*")]}))
        return
    if arguments[:2] == ["env", "create"]:
        import yaml

        name, file = arguments[arguments.index("-n") + 1], Path(arguments[arguments.index("--file") + 1])
        pip = next(line for line in yaml.safe_load(file.read_text())["dependencies"] if isinstance(line, dict))["pip"]
        lock = file.resolve().parent / pip[0].removeprefix("-r ")
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(envs / name)], check=True)
        # Named outright: `python -m uv` would otherwise mean the environment that it is itself installed in.
        into = ["--python", str(envs / name / "bin" / "python")]
        subprocess.run([*uv, "pip", "sync", "--quiet", *into, "--require-hashes", str(lock)], check=True)
        take_bytecode(envs / name)
        return
    sys.exit(f"the stand-in has no answer to: conda {' '.join(arguments)}")


if __name__ == "__main__":
    main(sys.argv[1:])
