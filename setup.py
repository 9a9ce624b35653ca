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


class CMakeBuild(build_ext):
    """Configures and builds the one target, then puts the module where setuptools wants it."""

    def build_extension(self, ext: Extension) -> None:
        cuda = os.environ.get("SNN_KERNELS_CUDA", "auto")
        if cuda not in ("auto", "0", "1"):
            sys.exit(f"SNN_KERNELS_CUDA: expected auto, 0 or 1, got {cuda!r}")
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(self.build_temp).resolve() / "cmake"
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DSNN_KERNELS_CUDA={cuda}",
        ]
        if archs := os.environ.get("SNN_KERNELS_CUDA_ARCHS"):
            configure.append(f"-DSNN_KERNELS_CUDA_ARCHS={archs}")
        # A cache from an isolated build environment names tools that are gone.
        shutil.rmtree(build / "CMakeFiles", ignore_errors=True)
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(ext_modules=[Extension("snn_kernels._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
