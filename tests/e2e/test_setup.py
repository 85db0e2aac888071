"""`make setup` on a small project: pip's variables hold for each step, and what broke off goes on.

The project has the script, a lock and two wheels of its own; the index and the proxy are real ones
on this machine, which note what they are asked.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.servers import ROOT
from tests.support.service.http_server import Handler, LocalServer

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TORCH, SMALL = "torch-2.13.0+cpu-py3-none-any.whl", "small-1.0-py3-none-any.whl"
AWAY = "index.invalid"
BACKEND = """\
import pathlib, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "stepgrpo-0-py3-none-any.whl"
    files = {"METADATA": "Metadata-Version: 2.1\\nName: stepgrpo\\nVersion: 0\\n",
             "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
             "RECORD": ""}
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for file, text in files.items():
            wheel.writestr(f"stepgrpo-0.dist-info/{file}", text)
    return name
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "stepgrpo"
version = "0"
"""


class Index(LocalServer):
    """Package index, and as well the proxy before one: it answers for any host."""

    def __init__(self, wheels: Path, status: int = 200) -> None:
        self.asked: list[str] = []
        """Methods and addresses as they came."""
        self.stalls_on = ""
        """Name in a path that is not answered."""
        self.stalled = threading.Event()
        index = self

        class Pages(Handler):
            def do_GET(self) -> None:
                index.asked.append(f"GET {self.path}")
                path = urlsplit(self.path).path
                if index.stalls_on and path.endswith(index.stalls_on):
                    index.stalled.set()
                    index.released.wait(60)
                content = index._content(path, wheels) if status == 200 else None
                found = status if content is not None else max(status, 404)
                self.reply(found, content or b"", "text/html")

            def do_CONNECT(self) -> None:
                index.asked.append(f"CONNECT {self.path}")
                self.send_error(403, "not through here")

        super().__init__(Pages)
        self.url = f"{self.address}/simple"

    def hears_of(self, name: str) -> bool:
        return any(f"/simple/{name}/" in each for each in self.asked)

    @staticmethod
    def _content(path: str, wheels: Path) -> bytes | None:
        kind, _, name = path.strip("/").rpartition("/")
        if kind == "wheels":
            return (wheels / name.replace("%2B", "+")).read_bytes()
        found = [each.name for each in wheels.glob(f"{name}-*.whl")]
        links = (f'<a href="/wheels/{each.replace("+", "%2B")}">{each}</a>' for each in found)
        return "".join(links).encode() if found else None


@dataclass
class Project:
    """A copy of what set-up needs."""

    root: Path
    venv: Path = field(init=False)

    def __post_init__(self) -> None:
        self.venv = self.root / ".venv"

    @property
    def site(self) -> Path:
        return self.venv / "lib" / "python3.11" / "site-packages"

    @property
    def stamp(self) -> Path:
        return self.venv / "stepgrpo-installed"

    def start(self, environment: dict[str, str]) -> subprocess.Popen[str]:
        """Its set-up, with nothing of this environment's pip and proxies."""
        bare = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PIP_", "COV", "PYTHON")) and not key.lower().endswith("_proxy")
        }
        bare |= {"ACCELERATOR": "cpu", "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"}
        bare |= {"PIP_NO_CACHE_DIR": "1"}
        return subprocess.Popen(
            [sys.executable, str(self.root / "scripts" / "setup.py")],
            env=bare | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def set_up(self, environment: dict[str, str]) -> tuple[int, str]:
        """Exit status and standard error."""
        process = self.start(environment)
        errors = process.communicate(timeout=120)[1]
        return process.returncode, errors

    def check(self) -> None:
        """All is there, and the stamp says so."""
        program = "import pip, torch, small; print(torch.WHOLE, small.WHOLE)"
        python = self.venv / "bin" / "python"
        said = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
        assert said.stdout.split() == ["True", "True"], said.stderr
        assert self.stamp.is_file()

    def empty(self) -> None:
        """Nothing of the lock is installed any more."""
        self.stamp.unlink(missing_ok=True)
        for name in ("torch", "small", "stepgrpo"):
            for each in (self.site / name, *self.site.glob(f"{name}-*")):
                shutil.rmtree(each, ignore_errors=True)


def write_wheel(path: Path) -> None:
    name, version, _ = path.name.split("-", 2)
    about = f"{name}-{version}.dist-info"
    files = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}/__init__.py": "WHOLE = True\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{about}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in (files | {f"{about}/RECORD": record}).items():
            wheel.writestr(file, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in (TORCH, SMALL):
        write_wheel(folder / name)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Project:
    root = tmp_path_factory.mktemp("project")
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.py", root / "scripts")
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "locks").mkdir()
    pins = {"torch==2.13.0+cpu": TORCH, "small==1.0": SMALL}
    digests = {pin: hashlib.sha256((wheels / name).read_bytes()) for pin, name in pins.items()}
    (root / "locks" / "cpu.txt").write_text(
        "".join(
            f"{pin} \\\n    --hash=sha256:{each.hexdigest()}\n" for pin, each in digests.items()
        )
    )
    return Project(root)


@pytest.fixture
def whole(project: Project, wheels: Path) -> Project:
    """The project with everything installed, whatever the last test left."""
    status, errors = project.set_up({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)})
    assert status == 0, errors
    return project


@pytest.fixture
def index(wheels: Path) -> Iterator[Index]:
    with Index(wheels).serving() as up:
        yield up


def test_a_private_index_from_a_file_and_a_further_one_hold_for_each_step(
    project: Project, index: Index, tmp_path: Path
) -> None:
    project.empty()
    with Index(tmp_path).serving() as bare:
        (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {bare.url}\n")
        variables = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
        status, errors = project.set_up(variables | {"PIP_EXTRA_INDEX_URL": index.url})
        assert status == 0, errors
        project.check()
        for name in ("torch", "small"):
            assert bare.hears_of(name)
            assert index.hears_of(name)


@pytest.mark.parametrize("variable", ["PIP_PROXY", "http_proxy"])
def test_each_step_goes_through_the_proxy(project: Project, index: Index, variable: str) -> None:
    """No other way leads to the index."""
    project.empty()
    variables = {"PIP_INDEX_URL": f"http://{AWAY}/simple", "PIP_TRUSTED_HOST": AWAY}
    status, errors = project.set_up(variables | {variable: index.address})
    assert status == 0, errors
    project.check()
    assert index.hears_of("torch")
    assert index.hears_of("small")
    assert all(each.startswith(f"GET http://{AWAY}/") for each in index.asked)


def test_the_index_for_torch_is_asked_for_torch_alone(
    project: Project, index: Index, wheels: Path
) -> None:
    project.empty()
    with Index(wheels).serving() as other:
        variables = {"TORCH_INDEX": other.url, "PIP_INDEX_URL": index.url}
        status, errors = project.set_up(variables)
        assert status == 0, errors
        assert (other.hears_of("torch"), other.hears_of("small")) == (True, False)
    assert (index.hears_of("torch"), index.hears_of("small")) == (False, True)
    project.check()


def test_a_proxy_that_refuses_is_named_for_each_index_that_was_tried(
    project: Project, tmp_path: Path
) -> None:
    project.empty()
    with Index(tmp_path, status=403).serving() as proxy:
        variables = {"PIP_INDEX_URL": f"http://{AWAY}/simple", "PIP_TRUSTED_HOST": AWAY}
        status, errors = project.set_up(variables | {"PIP_PROXY": proxy.address})
    assert status == 1
    assert any(each.startswith("CONNECT download.pytorch.org") for each in proxy.asked)
    assert f"Looking in indexes: http://{AWAY}/simple" in errors
    assert "Looking in indexes: https://download.pytorch.org" in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("stepgrpo set-up: no CPU build of torch==2.13.0+cpu was found")
    assert "make TORCH_INDEX=https://" in last


def without_pip(project: Project) -> None:
    for each in (*project.site.glob("pip-*"), project.site / "pip"):
        shutil.rmtree(each, ignore_errors=True)
    for each in (project.venv / "bin").glob("pip*"):
        each.unlink()


def with_half_a_pip(project: Project) -> None:
    shutil.rmtree(project.site / "pip" / "_internal" / "commands")


def with_half_a_torch(project: Project) -> None:
    """As pip leaves it when it is killed while it copies."""
    (project.site / "torch" / "__init__.py").write_text("")
    (project.site / "torch-2.13.0+cpu.dist-info" / "INSTALLER").unlink()


def with_a_torch_set_aside(project: Project) -> None:
    """As pip leaves it when it is killed while it upgrades."""
    (project.site / "torch").rename(project.site / "~orch")
    about = project.site / "torch-2.13.0+cpu.dist-info"
    about.rename(project.site / "~orch-2.13.0+cpu.dist-info")


def with_a_python_that_is_gone(project: Project) -> None:
    for each in (project.venv / "bin").glob("python*"):
        each.unlink()
        each.symlink_to(project.root / "gone" / "python3.11")


def without_the_settings_of_the_environment(project: Project) -> None:
    (project.venv / "pyvenv.cfg").write_text("")


Harm = Callable[[Project], None]


@pytest.mark.parametrize(
    "harm",
    [
        without_pip,
        with_half_a_pip,
        with_half_a_torch,
        with_a_torch_set_aside,
        with_a_python_that_is_gone,
        without_the_settings_of_the_environment,
    ],
)
def test_an_environment_that_was_left_broken_is_made_whole(
    whole: Project, wheels: Path, harm: Harm
) -> None:
    whole.stamp.unlink()
    harm(whole)
    status, errors = whole.set_up({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)})
    assert status == 0, errors
    whole.check()
    assert list(whole.site.glob("~*")) == []


def test_a_python_that_is_gone_is_noticed_although_all_was_installed(whole: Project) -> None:
    """What is installed stays so: nobody is asked for it."""
    with_a_python_that_is_gone(whole)
    status, errors = whole.set_up({"PIP_NO_INDEX": "1"})
    assert status == 0, errors
    whole.check()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_set_up_that_was_ended_goes_on(
    project: Project, index: Index, number: signal.Signals
) -> None:
    project.empty()
    index.stalls_on = SMALL
    process = project.start({"PIP_INDEX_URL": index.url})
    stalled = index.stalled.wait(300)
    os.killpg(process.pid, number)
    errors = process.communicate(timeout=30)[1]
    assert stalled, errors
    assert process.returncode != 0
    if number is signal.SIGINT:
        last = errors.strip().splitlines()[-1]
        assert last == "stepgrpo set-up: interrupted; the same command goes on with it."
    assert not project.stamp.exists()
    index.stalls_on = ""
    index.asked.clear()
    status, errors = project.set_up({"PIP_INDEX_URL": index.url})
    assert status == 0, errors
    project.check()
    assert (index.hears_of("torch"), index.hears_of("small")) == (False, True)
