"""What is built and shipped: the contents of the wheel, the build's options, what the sources must not contain."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from programs import configured, output_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = {"snn_kernels": ROOT / "snn_kernels", "snn_convert": ROOT / "python" / "snn_convert"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel as a user gets it who has only the source distribution: in isolation, from a folder elsewhere.

    Hardly optimised, which takes a third of the time: its speed is no property under test.
    """
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "demo-report", "__pycache__", "*.so", "*.egg-info")
    shutil.copytree(ROOT, sources, ignore=unwanted)
    make_sdist = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    output_of(sys.executable, "-c", make_sdist, cwd=sources)
    shutil.rmtree(sources)
    (sdist,) = folder.glob("*.tar.gz")
    environment = {**os.environ, "SNN_KERNELS_CUDA": "0", "CMAKE_BUILD_TYPE": "None", "CXXFLAGS": "-O1"}
    environment.pop("SNN_KERNELS_BUILD_DIR", None)
    output_of(
        sys.executable, "-m", "pip", "wheel", sdist, "--no-deps", "-w", folder, cwd=folder, environment=environment
    )
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_carries_every_package(wheel):
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    expected = {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in SHIPPED.items()
        for file in folder.rglob("*.py")
    }
    assert carried == expected


def test_wheel_carries_extension_entry_point_and_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert any(re.fullmatch(r"snn_kernels/_C\..*\.(so|pyd)", name) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    assert "snn-convert = snn_convert.cli:main" in archive.read(entry_points).decode()


def test_wheel_runs_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    output_of(sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, wheel)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    code = (
        "import snn_convert, snn_kernels; print(snn_convert.__file__, snn_kernels.__file__);"
        "print(snn_kernels.backends()['cpu'].available, repr(snn_kernels._C.cuda_architectures))"
    )
    found, state = output_of(sys.executable, "-c", code, cwd=tmp_path, environment=environment).splitlines()
    assert found.count(str(site)) == 2
    assert state == "True ''"
    assert "cpu" in output_of(site / "bin" / "snn-convert", "info", cwd=tmp_path, environment=environment)


@pytest.fixture
def configure(tmp_path):
    """Runs CMake's configuration with the options given, where no nvcc can be found."""
    path = []
    for number, folder in enumerate(map(Path, os.environ["PATH"].split(os.pathsep))):
        if (folder / "nvcc").exists():
            stand_in = tmp_path / f"bin{number}"
            stand_in.mkdir()
            for tool in folder.iterdir():
                if tool.name != "nvcc":
                    (stand_in / tool.name).symlink_to(tool)
            folder = stand_in
        path.append(str(folder))
    hints = ("CUDACXX", "CUDA_PATH", "CUDA_HOME", "CUDAToolkit_ROOT")
    environment = {name: value for name, value in os.environ.items() if name not in hints}
    environment["PATH"] = os.pathsep.join(path)
    return lambda *options: configured(ROOT, tmp_path / "build", *options, environment=environment)


def test_cuda_asked_for_and_missing(configure):
    done = configure("-DSNN_KERNELS_CUDA=1")
    assert done.returncode != 0
    assert "SNN_KERNELS_CUDA=1 but no nvcc was found" in done.stdout


def test_cuda_where_it_can_be_found(configure):
    done = configure("-DSNN_KERNELS_CUDA=auto")
    assert done.returncode == 0, done.stdout
    assert "building without CUDA" in done.stdout


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc")
@pytest.mark.parametrize(
    ("known", "built"),
    [
        ((50, 75, 80, 86, 90), "75-real,80-real,90-real,90-virtual"),  # before CUDA 12.8
        ((75, 80, 86, 90, 100, 120), "75-real,80-real,90-real,100-real,100-virtual"),
    ],
)
def test_gpus_that_the_compiler_knows_are_built_for(tmp_path, known, built):
    compiler = tmp_path / "nvcc"
    answer = "\\n".join(f"compute_{capability}" for capability in known)
    compiler.write_text(
        f'#!/bin/sh\ncase $1 in --list-gpu-arch) printf "{answer}\\n";; *) exec {shutil.which("nvcc")} "$@";; esac\n'
    )
    compiler.chmod(0o755)
    done = configured(ROOT, tmp_path / "build", environment={**os.environ, "CUDACXX": str(compiler)})
    assert done.returncode == 0, done.stdout
    assert f'SNN_CUDA_ARCHITECTURES=\\"{built}\\"' in (tmp_path / "build" / "build.ninja").read_text()


def test_unknown_option(configure):
    done = configure("-DSNN_KERNELS_CUDA=bogus")
    assert done.returncode != 0
    assert "SNN_KERNELS_CUDA: expected auto, 0 or 1, got 'bogus'" in done.stdout


def test_sources_know_nothing_of_torch():
    torch_header = re.compile(r'#\s*include\s*[<"](torch|ATen|c10)')
    including = [
        path for path in (ROOT / "csrc").rglob("*") if path.is_file() and torch_header.search(path.read_text())
    ]
    assert including == []


def test_no_flag_ties_the_build_to_this_machine():
    for name in ("CMakeLists.txt", "setup.py", "Makefile"):
        assert not re.search(r"-m(arch|tune|cpu)=native", (ROOT / name).read_text()), name


def test_every_package_folder_has_an_init():
    for folder in SHIPPED.values():
        for file in folder.rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), f"{file.parent} would not be shipped"


def test_build_requirements_are_stated_once():
    assert PYPROJECT["dependency-groups"]["build"] == PYPROJECT["build-system"]["requires"]


def test_torch_of_the_makefile_is_one_the_metadata_allows():
    pinned = Requirement(re.search(r"^TORCH \?= (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1])
    (pin,) = pinned.specifier
    (allowed,) = (r for r in map(Requirement, PYPROJECT["project"]["dependencies"]) if r.name == "torch")
    assert pin.operator == "=="
    assert pin.version in allowed.specifier
