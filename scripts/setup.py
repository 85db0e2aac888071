"""Create `.venv` and install the pinned lock into it; run by `make`, with any Python.

The syntax lets an old Python parse it and report what is missing. An interrupted setup is
resumed by the next one, wherever it stopped. pip gets the environment unchanged: its configuration
and variables (PIP_INDEX_URL, PIP_PROXY, PIP_CERT, HTTPS_PROXY, ...) apply to every step.
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
SITE = VENV / "lib" / "python3.11" / "site-packages"
TORCH_INDEX = os.environ.get("TORCH_INDEX") or "https://download.pytorch.org/whl/cpu"
NEEDED_GIB = {"cpu": 4, "cuda": 16}


def main():
    """Install the packages for `ACCELERATOR`, unless they are installed already."""
    accelerator = choose_accelerator(os.environ.get("ACCELERATOR", ""))
    lock = ROOT / "locks" / (accelerator + ".txt")
    state = accelerator + " " + fingerprint(lock, ROOT / "pyproject.toml")
    stamp = VENV / "stepgrpo-installed"
    if stamp.is_file() and stamp.read_text() == state and python_works():
        return
    check_machine(accelerator)
    if stamp.is_file():
        stamp.unlink()  # an interrupted installation is incomplete, whatever the next lock is
    make_environment()
    forget_half_installed()
    install(accelerator, lock)
    stamp.write_text(state)


def choose_accelerator(wanted):
    """Return cpu or cuda: the requested one, or cuda if an NVIDIA GPU answers."""
    if wanted not in ("", "cpu", "cuda"):
        stop("ACCELERATOR=%s is unknown; use cpu or cuda" % wanted)
    if wanted:
        return wanted
    smi = shutil.which("nvidia-smi")
    if smi and subprocess.run([smi, "-L"], stdout=subprocess.PIPE).stdout.startswith(b"GPU"):
        return "cuda"
    return "cpu"


def fingerprint(*files):
    """Return a digest that changes when any of the files does."""
    return hashlib.sha256(b"".join(each.read_bytes() for each in files)).hexdigest()


def check_machine(accelerator):
    """Check for everything that would fail later; stop with one sentence for each problem."""
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
    free = (shutil.disk_usage(str(ROOT)).free + size_of(VENV)) / 2**30
    if free < NEEDED_GIB[accelerator]:
        stop(
            "%d GiB of free disk are needed for the %s packages, %s has %.1f GiB"
            % (NEEDED_GIB[accelerator], accelerator, ROOT, free)
        )


def size_of(folder):
    """Return the bytes of the files below: installed packages need no further space."""
    return sum(each.lstat().st_size for each in folder.rglob("*"))


def make_environment():
    """Make a `.venv` with a working Python and pip; rebuild it only if necessary."""
    if python_works() and pip_works():
        return
    command = [getattr(sys, "_base_executable", None) or sys.executable, "-m", "venv"]
    if VENV.exists():
        for each in [*(VENV / "bin").glob("python*"), SITE / "pip", *SITE.glob("pip-*.dist-info")]:
            remove(each)  # venv keeps links to a removed Python, and an incomplete pip
        subprocess.run([*command, str(VENV)])
    if not (python_works() and pip_works()):
        run(
            [*command, "--clear", str(VENV)],
            "python -m venv failed; on Debian and Ubuntu it needs the package python3.11-venv",
        )


def python_works():
    """Return whether the Python of `.venv` runs, has this version, and installs there."""
    program = (
        "import os, sys; "
        "sys.exit(sys.version_info[:2] != (3, 11) or not os.path.samefile(sys.prefix, sys.argv[1]))"
    )
    return answers(["-c", program, str(VENV)])


def pip_works():
    """Return whether `.venv` has a complete pip."""
    return answers(["-m", "pip", "--version"])


def answers(arguments):
    """Return whether the Python of `.venv` runs this."""
    command = [str(VENV / "bin" / "python"), *arguments]
    try:
        return not subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ).returncode
    except OSError:
        return False


def forget_half_installed():
    """Remove the metadata of packages whose installation was interrupted, so that pip repeats it.

    pip treats a package as installed once METADATA exists, and writes INSTALLER after all files.
    Folders named ~ are those that an interrupted upgrade had set aside.
    """
    for each in SITE.glob("*.dist-info"):
        if not ((each / "INSTALLER").is_file() and (each / "RECORD").is_file()):
            remove(each)
    for each in SITE.glob("~*"):
        remove(each)


def remove(path):
    """Remove a file, a link or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif path.exists() or path.is_symlink():
        path.unlink()


def install(accelerator, lock):
    """Install everything from the lock, without dependency resolution, then this project."""
    if accelerator == "cpu":
        install_cpu_torch(lock)
    total = len(re.findall(r"^[a-zA-Z0-9]", lock.read_text(), re.MULTILINE))
    print("Installing %d pinned packages for %s ..." % (total, accelerator), flush=True)
    if not pip(["--no-deps", "--require-hashes", "-r", str(lock)], total):
        stop("installing %s failed; the lines above say which package and why" % lock)
    if not pip(["--no-deps", "--no-build-isolation", "-e", str(ROOT)], 0):
        stop("installing this project failed; the lines above say why")


def install_cpu_torch(lock):
    """Install torch first and alone: an index may serve only its CUDA builds under that name."""
    pinned = re.search(r"^torch==(?:[^\n]*\\\n)*[^\n]*\n", lock.read_text(), re.MULTILINE).group()
    wanted = VENV / "torch.txt"
    wanted.write_text(pinned)
    command = ["--no-deps", "--require-hashes", "-r", str(wanted)]
    print("Installing PyTorch for CPUs ...", flush=True)
    indexed = ["--index-url", TORCH_INDEX]
    own_choice = bool(os.environ.get("TORCH_INDEX"))
    attempts = [indexed] if own_choice else [[], indexed]
    failures = []  # a proxy or a certificate can be the cause, also for the first index
    if not any(pip([*each, *command], 0, failures) for each in attempts):
        sys.stderr.write("".join(failures))
        stop(
            "no CPU build of %s was found on pip's package index or at %s; pass an index "
            "that has it: make TORCH_INDEX=https://... (PyTorch's own: "
            "https://download.pytorch.org/whl/cpu)" % (pinned.split()[0], TORCH_INDEX)
        )


def pip(arguments, total, failures=None):
    """Run pip install with a counter; show its last errors, or append them to `failures`."""
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
    if process.wait() and failures is None:
        sys.stderr.write("".join(last))
    elif process.returncode:
        failures += last
    return process.returncode == 0


def report(text):
    """Print a line that replaces itself on a terminal; print nothing elsewhere."""
    if text and sys.stdout.isatty():
        print("\r\033[K" + text, end="", flush=True)


def run(command, problem):
    """Run a command; if it fails, stop with the problem."""
    if subprocess.run(command).returncode:
        stop(problem)


def stop(sentence):
    """Stop with one sentence."""
    sys.exit("stepgrpo set-up: " + sentence + ".")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("interrupted; the same command goes on with it")
