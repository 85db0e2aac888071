"""Creates `.venv` and installs the pinned lock into it; run by `make`, with any Python.

Written so that an old Python can parse it, and say what is missing.
"""

import hashlib
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
TORCH_INDEX = os.environ.get("TORCH_INDEX") or "https://download.pytorch.org/whl/cpu"
NEEDED_GIB = {"cpu": 4, "cuda": 16}


def main():
    """Install what `ACCELERATOR` needs, unless it is installed already."""
    accelerator = choose_accelerator(os.environ.get("ACCELERATOR", ""))
    lock = ROOT / "locks" / (accelerator + ".txt")
    state = accelerator + " " + fingerprint(lock, ROOT / "pyproject.toml")
    stamp = VENV / "stepgrpo-installed"
    if stamp.is_file() and stamp.read_text() == state:
        return
    check_machine(accelerator)
    if not (VENV / "bin" / "pip").exists():
        run(
            [sys.executable, "-m", "venv", str(VENV)],
            "python -m venv failed; on Debian and Ubuntu it needs the package python3.11-venv",
        )
    install(accelerator, lock)
    stamp.write_text(state)


def choose_accelerator(wanted):
    """cpu or cuda: as asked, else by whether an NVIDIA GPU answers."""
    if wanted not in ("", "cpu", "cuda"):
        stop("ACCELERATOR=%s is unknown; use cpu or cuda" % wanted)
    if wanted:
        return wanted
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], stdout=subprocess.PIPE).stdout.startswith(b"GPU"):
        return "cuda"
    return "cpu"


def fingerprint(*files):
    """Changes when any of the files does."""
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def check_machine(accelerator):
    """One clear sentence for each thing that would fail later."""
    if sys.version_info[:2] != (3, 11):
        stop(
            "Python 3.11 is needed, this is %s; install it and run make PYTHON=python3.11"
            % platform.python_version()
        )
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        stop(
            "Linux on x86_64 is needed (vLLM's wheels are built for it), this is %s on %s"
            % (platform.system(), platform.machine())
        )
    free = shutil.disk_usage(str(ROOT)).free / 2**30
    if free < NEEDED_GIB[accelerator]:
        stop(
            "%d GiB of free disk are needed for the %s packages, %s has %.1f GiB"
            % (NEEDED_GIB[accelerator], accelerator, ROOT, free)
        )


def install(accelerator, lock):
    """Everything from the lock, without dependency resolution, then this project."""
    if accelerator == "cpu":
        install_cpu_torch(lock)
    total = len(re.findall(r"^[a-zA-Z0-9]", lock.read_text(), re.MULTILINE))
    print("Installing %d pinned packages for %s ..." % (total, accelerator), flush=True)
    if not pip(["--no-deps", "--require-hashes", "-r", str(lock)], total):
        stop("installing %s failed; the lines above say which package and why" % lock)
    if not pip(["--no-deps", "--no-build-isolation", "-e", str(ROOT)], 0):
        stop("installing this project failed; the lines above say why")


def install_cpu_torch(lock):
    """Torch first, and alone: an index may serve only its CUDA builds under that name."""
    pinned = re.search(r"^torch==(?:[^\n]*\\\n)*[^\n]*\n", lock.read_text(), re.MULTILINE).group()
    wanted = VENV / "torch.txt"
    wanted.write_text(pinned)
    command = ["--no-deps", "--require-hashes", "-r", str(wanted)]
    print("Installing PyTorch for CPUs ...", flush=True)
    indexed = ["--index-url", TORCH_INDEX]
    own_choice = "TORCH_INDEX" in os.environ
    attempts = [indexed] if own_choice else [[], indexed]
    if not any(pip([*each, *command], 0, quiet=each is not attempts[-1]) for each in attempts):
        stop(
            "no CPU build of %s was found on the default package index or at %s; pass an index "
            "that has it: make TORCH_INDEX=https://... (PyTorch's own: "
            "https://download.pytorch.org/whl/cpu)" % (pinned.split()[0], TORCH_INDEX)
        )


def pip(arguments, total, quiet=False):
    """Run pip install with a counter; its last lines are shown when it fails."""
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        *arguments,
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    seen, last = 0, []
    for line in process.stdout:
        last = [*last[-15:], line]
        if line.startswith("Collecting ") and total:
            seen += 1
            report("[%d/%d] %s" % (seen, total, line.split()[1].split("==")[0]))
        elif line.startswith("Installing collected"):
            report("[%d/%d] unpacking\n" % (seen, total) if total else "")
    if process.wait() and not quiet:
        sys.stderr.write("".join(last))
    return process.returncode == 0


def report(text):
    """A line that replaces itself on a terminal, and is left out elsewhere."""
    if text and sys.stdout.isatty():
        print("\r\033[K" + text, end="", flush=True)


def run(command, problem):
    """Run or stop with the problem."""
    if subprocess.run(command).returncode:
        stop(problem)


def stop(sentence):
    """End with one clear sentence."""
    sys.exit("stepgrpo set-up: " + sentence + ".")


if __name__ == "__main__":
    main()
