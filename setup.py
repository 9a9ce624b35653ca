"""Builds snn_kernels._C with CMake and Ninja; everything else about the package is in pyproject.toml."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# What CMakeLists.txt takes from the environment.
OPTIONS = ("SNN_KERNELS_CUDA", "SNN_KERNELS_CUDA_ARCHS", "SNN_KERNELS_STRICT")


def run(*command: str) -> None:
    if subprocess.run(command).returncode:
        sys.exit(f"snn_kernels._C was not built: {command[0]} says why, above")


class CMakeBuild(build_ext):
    """Configures and builds the one target, then puts the module where setuptools wants it.

    SNN_KERNELS_BUILD_DIR names a folder in which objects are kept from one build to the next; it suits builds without
    isolation only, because a cache from an isolated environment names tools that are gone.
    """

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        target.mkdir(parents=True, exist_ok=True)
        kept = os.environ.get("SNN_KERNELS_BUILD_DIR")
        build = Path(kept) if kept else Path(self.build_temp).resolve() / "cmake"
        if not kept:
            shutil.rmtree(build, ignore_errors=True)
        run(
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            "-UCMAKE_CUDA_COMPILER",  # look for nvcc again: it may have come or gone
            *(f"-D{name}={os.environ[name]}" if name in os.environ else f"-U{name}" for name in OPTIONS),
        )
        run("cmake", "--build", str(build))


setup(ext_modules=[Extension("snn_kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
