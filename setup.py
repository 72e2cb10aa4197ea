"""Packaging of minbert (the encoder) and multitask (tasks on top of it)."""

from pathlib import Path

from setuptools import setup

README = Path(__file__).parent / "README.md"

setup(
    name="minbert",
    version="0.1.0",
    description="BERT written out by hand, and one BERT fine-tuned on several tasks at once",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=["minbert", "multitask"],
    package_data={"minbert": ["py.typed"], "multitask": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.4",
        "numpy>=1.26",
        "scipy>=1.11",
        "tokenizers>=0.19",
        "safetensors>=0.4.3",
        "huggingface_hub>=0.24",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": ["pytest>=8", "hypothesis>=6.100", "transformers>=4.45"],
        "dev": ["ruff>=0.6", "mypy>=1.11"],
    },
    entry_points={"console_scripts": ["multitask = multitask.__main__:main"]},
)
