"""Builds the CPU kernels on the way; without a compiler the package installs without them.

Everything else about the package is in pyproject.toml.
"""

import importlib.util
import logging
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

OPS = Path("leandetr", "ops")


def builder():
    """`leandetr.ops.build`, without importing the package, which needs PyTorch."""
    place = Path(__file__).parent / "src" / OPS / "build.py"
    spec = importlib.util.spec_from_file_location("kernel_builder", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildKernels(build_py):
    """Builds the library next to the sources (editable) or into the wheel."""

    def run(self):
        """Copy the modules, then build; a compiler that is not there or fails stops nothing."""
        super().run()
        kernels = builder()
        folder = kernels.LIBRARIES if self.editable_mode else Path(self.build_lib, OPS, "lib")
        try:
            kernels.build(folder)
        except kernels.BuildFailed as error:
            reason = str(error).splitlines()[0]
            logging.warning("leandetr is installed without CPU kernels: %s", reason)


class PlatformWheel(bdist_wheel):
    """One wheel a platform, for any Python; for any platform where nothing was built."""

    def get_tag(self):
        """Python, interface and platform, as they stand in the file name."""
        built = Path(self.bdist_dir, OPS, "lib", builder().library_name())
        return "py3", "none", super().get_tag()[2] if built.exists() else "any"


class PlatformDistribution(Distribution):
    """Holds a compiled library, so that it goes where those of the platform go."""

    def has_ext_modules(self):
        """Yes, though none that Python imports."""
        return True


setup(
    cmdclass={"build_py": BuildKernels, "bdist_wheel": PlatformWheel},
    distclass=PlatformDistribution,
)
