"""Packages that only some uses of snugnet need, and the extra that brings each: ``pip install 'snugnet[search]'``.

``import snugnet`` and all that loads, specialises and exports get along with torch, numpy, safetensors and onnx. Whatever imports one of
the packages here does so where it is used, behind :func:`needs`.
"""

from __future__ import annotations

from importlib import import_module

from snugnet.errors import MissingPackageError

EXTRAS = {
    "PIL": ("pillow", "train"),
    "datasets": ("datasets", "hub"),
    "fastapi": ("fastapi", "serve"),
    "filelock": ("filelock", "serve"),
    "huggingface_hub": ("huggingface-hub", "hub"),
    "kornia": ("kornia", "train"),
    "lightning_fabric": ("lightning-fabric", "train"),
    "matplotlib": ("matplotlib", "plots"),
    "onnxruntime": ("onnxruntime", "deploy"),
    "prometheus_client": ("prometheus-client", "serve"),
    "pyarrow": ("pyarrow", "train"),
    "pymoo": ("pymoo", "search"),
    "python_multipart": ("python-multipart", "serve"),
    "ray": ("ray", "cluster"),
    "scipy": ("scipy", "search"),
    "sklearn": ("scikit-learn", "search"),
    "tensorboard": ("tensorboard", "train"),
    "uvicorn": ("uvicorn", "serve"),
    "xxhash": ("xxhash", "train"),
}
"""By the name that Python imports: the package, and the extra that brings it."""


def needs(*modules: str) -> None:
    """Say what is missing before it is imported.

    Args:
        modules: names of :data:`EXTRAS`, which the caller imports next.

    Raises:
        MissingPackageError: one of them is not installed; the message says what to install.
    """
    for module in modules:
        if not is_installed(module):
            package, extra = EXTRAS[module]
            raise MissingPackageError(f"this needs {package}, which is not installed: pip install 'snugnet[{extra}]'")


def is_installed(module: str) -> bool:
    """Whether a module can be imported; one that is there and lacks something itself raises what it raises."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return False
    return True
