"""The repository itself: what is packed, what git ignores, and that the documents are true."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = {"embed_export", "embed_runtime", "embed_server"}
BANNED_WORDS = {
    "utils", "util", "helpers", "helper", "common", "misc", "manager", "processor", "data", "info",
}  # fmt: skip
# Not part of the development environment: they need a GPU, or their wheels come from elsewhere.
UNPINNED = {"onnxruntime-gpu", "tensorrt"}
COMMANDS = {"embed-export": "embed_export.cli", "embed-serve": "embed_server.cli"}

BASE_INSTALL_ONLY = """
import sys
from importlib.abc import MetaPathFinder

ALLOWED = {"embed_export", "embed_runtime", "embed_server", "numpy", "tokenizers", "msgspec"}

class BaseInstallOnly(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not in the base install", name=name)

sys.meta_path.insert(0, BaseInstallOnly())
"""


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )


def tracked_files(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--", *patterns],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return [Path(line) for line in listed.stdout.splitlines()]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def documents() -> dict[Path, str]:
    texts = {path: (ROOT / path).read_text() for path in tracked_files("*.md")}
    assert Path("README.md") in texts
    return texts


def test_the_wheel_holds_exactly_the_three_packages(tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert all(f"{package}/py.typed" in names for package in PACKAGES)
    packed = {name for name in names if name.partition("/")[0] in PACKAGES}
    tracked = tracked_files("export/embed_*", "runtime/embed_*", "server/embed_*")
    assert {str(Path(*path.parts[1:])) for path in tracked} <= packed


def test_git_ignores_built_bundles_and_keeps_their_readme() -> None:
    paths = ["engines/model/manifest.json", "engines/model/model.plan", ".venv/bin/python"]
    command = ["git", "check-ignore", "--no-index", *paths, "engines/README.md"]
    ignored = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert ignored.stdout.split() == paths


def test_file_names_say_what_is_inside() -> None:
    vague = [
        str(path)
        for path in tracked_files("*.py")
        # A route is named after its endpoint, and `/info` is one.
        if BANNED_WORDS & set(path.stem.split("_")) and path.parent.name != "routes"
    ]
    assert vague == []


def test_every_top_folder_has_a_readme() -> None:
    tops = {path.parts[0] for path in tracked_files() if len(path.parts) > 1}
    missing = [top for top in tops if top[0] != "." and not (ROOT / top / "README.md").is_file()]
    assert missing == []


def test_every_part_of_the_tests_is_described() -> None:
    described = (ROOT / "tests/README.md").read_text()
    parts = {f"{p.parts[1]}/" if len(p.parts) > 2 else p.name for p in tracked_files("tests/*.py")}
    assert {part for part in parts - {"conftest.py"} if f"`{part}`" not in described} == set()


def test_every_requirement_is_pinned_within_its_range(project: dict[str, Any]) -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pins = {canonicalize_name(name): version for name, version in (s.split("==") for s in lines)}
    extras = project["optional-dependencies"].values()
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name in UNPINNED | {"embed-runtime"}:
            continue
        assert name in pins, f"{name} is not in constraints.txt: run make constraints"
        assert pins[name] in requirement.specifier, f"{name} {pins[name]} is not {requirement}"


def test_extras_named_in_documents_exist(
    project: dict[str, Any], documents: dict[Path, str]
) -> None:
    known = set(project["optional-dependencies"])
    for path, text in documents.items():
        for extras in re.findall(r"embed-runtime\[([\w,-]+)\]", text):
            assert set(extras.split(",")) <= known, path


def test_make_targets_named_in_documents_exist(documents: dict[Path, str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for path, text in documents.items():
        named = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
        assert named <= targets, path


def test_modules_run_in_documents_exist(documents: dict[Path, str]) -> None:
    for path, text in documents.items():
        for name in re.findall(r"python3? -m ([a-z_.]+)", text):
            assert find_spec(name), f"{path}: {name}"


@pytest.mark.parametrize("command", COMMANDS)
def test_options_named_in_documents_exist(command: str, documents: dict[Path, str]) -> None:
    shown = run_python(f"from {COMMANDS[command]} import main; main(['--help'])").stdout
    known = set(re.findall(r"--[a-z0-9-]+", shown))
    for path, text in documents.items():
        for line in re.findall(rf"\b{command} ([^`\n|]+)", text.replace("\\\n", " ")):
            assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", line)) <= known, f"{path}: {line}"


def test_links_in_documents_lead_somewhere(documents: dict[Path, str]) -> None:
    for path, text in documents.items():
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                assert (ROOT / path.parent / target).exists(), f"{path}: {target}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_needs_only_the_base_install(command: str) -> None:
    code = f"{BASE_INSTALL_ONLY}\nfrom {COMMANDS[command]} import main\nmain(['--help'])"
    shown = run_python(code)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(f"usage: {command}")
    assert shown.stderr == ""


def test_contributing_shows_files_as_they_are() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    recipe = (ROOT / "export/embed_export/recipes/ernie.py").read_text(encoding="utf-8")
    assert f"```python\n{recipe}```" in guide
    families = (ROOT / "tests/export/families.py").read_text(encoding="utf-8")
    [entry] = re.findall(r'```python\n(    "ernie": Family\(\n.*?)```', guide, re.DOTALL)
    assert entry in families
