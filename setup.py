"""Packaging of minbert (the encoder) and multitask (tasks on top of it)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "minbert/__init__.py").read_text("utf-8"), re.MULTILINE)
assert VERSION is not None

setup(
    name="minbert",
    version=VERSION[1],
    description="BERT written out by hand, and one BERT fine-tuned on several tasks at once",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["minbert", "minbert.*", "multitask", "multitask.*"]),
    package_data={"minbert": ["py.typed"], "multitask": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "scipy>=1.15",
        "tokenizers>=0.20",
        "safetensors>=0.4.3",
        "huggingface_hub>=1.0",
        "tqdm>=4.66",
        "filelock>=3.12",
    ],
    extras_require={
        "tables": ["pyarrow>=15", "openpyxl>=3.1"],
        "export": ["onnx>=1.16", "onnxscript>=0.5"],
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "setuptools>=77",
            "transformers>=4.45",
            "onnx>=1.16",
            "onnxscript>=0.5",
            "onnxruntime>=1.18",
            "pandas>=2.2",
            "datasets>=3.0",
            "pyarrow>=15",
            "openpyxl>=3.1",
            "tensorboard>=2.17",
        ],
        "examples": ["pandas>=2.2", "tensorboard>=2.17"],
        "benchmark": ["onnx>=1.16", "onnxruntime>=1.18", "transformers>=4.45"],
        "docs": ["Sphinx>=8.1", "myst-parser>=4.0", "furo>=2024.8.6"],
        "dev": ["ruff>=0.6", "mypy>=1.11", "pre-commit>=4.0", "Sphinx>=8.1", "myst-parser>=4.0", "furo>=2024.8.6"],
    },
    entry_points={"console_scripts": ["multitask = multitask.__main__:main"]},
)
