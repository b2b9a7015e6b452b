"""Python started in a checkout: the folder of sources hides the package that ``pip install .`` put elsewhere.

The sources alone are no package: ``triton_kernels`` lies beside them, and the native module was built elsewhere. An
editable install completes them. Where there is none, the installed copy takes their place, with every module of it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


def _is_complete() -> bool:
    """Whether ``triton_kernels`` is found, and is of the same installation or checkout as this file."""
    spec = importlib.util.find_spec(f"{__package__}.triton_kernels")
    if spec is None or spec.origin is None:
        return False
    return Path(spec.origin).resolve().parent in (_FOLDER / "triton_kernels", _FOLDER.parent / "triton_kernels")


def _installed_copy() -> Path:
    for entry in sys.path:
        package = Path(entry, _FOLDER.name)
        if (package / "triton_kernels" / "__init__.py").is_file():
            return package
    raise ImportError(
        f"{_FOLDER} holds the sources of extrap_kernels, which is not installed for {sys.executable}: run "
        f"`pip install {_FOLDER.parent}`, or `pip install -e {_FOLDER.parent}` to edit the sources in place"
    )


def replaced_by_installed_copy(package: str) -> bool:
    """Put the installed copy of ``package`` into ``sys.modules`` if the sources around this file are incomplete."""
    if _is_complete():
        return False
    folder = _installed_copy()
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    del sys.modules[__name__]  # the installed copy has its own
    sys.modules[package] = module
    spec.loader.exec_module(module)
    return True
