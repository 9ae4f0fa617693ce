"""List the packages. All else is in setup.cfg, which cannot add directories of data to the packages that it finds."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["xlmtrain*"]), "xlmtrain.configs", "xlmtrain.data.sample"])
