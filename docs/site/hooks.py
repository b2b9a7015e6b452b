"""What the site has besides the files in docs/: pages of the folder above, the API reference, links that lead there."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from mkdocs.structure.files import File

import extrap_kernels
from extrap_kernels.factory import optimizers

# Files of the folder above that are pages of the site.
_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^()#\s]*)(#[^()\s]*)?\)")
_IMAGE = re.compile(r"(!\[[^\[\]]*\]\()docs/")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    root = posixpath.dirname(config.config_file_path)
    for source, target in _PAGES.items():
        with open(posixpath.join(root, source), encoding="utf-8") as file:
            text = _IMAGE.sub(r"\1", file.read())
        files.append(File.generated(config, target, content=_relinked(text, folder="")))
    files.append(File.generated(config, "reference.md", content=_reference()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links lead to where a page is in the site; what is not in it becomes its name."""
    if page.file.generated_by:
        return markdown
    return _relinked(markdown, folder=posixpath.join("docs", posixpath.dirname(page.file.src_uri)))


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Take out of docstrings what only reStructuredText reads: the role before a name, the second colon before code."""
    if page.file.src_uri != "reference.md":
        return html
    return re.sub(r":(class|func|meth|mod|attr|data):(?=<code>)", "", html).replace("::</p>", ":</p>")


def _relinked(markdown: str, folder: str) -> str:
    """Rewrite the links of a page that stands in ``folder`` of the repository, outside of code."""

    def rewritten(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        if not path or "://" in path or path.startswith("mailto:"):
            return link[0]
        target = posixpath.normpath(posixpath.join(folder, path))
        if target in _PAGES:
            target = posixpath.join("docs", _PAGES[target])
        if not target.startswith("docs/") or target.startswith("docs/site/"):
            return text
        return f"[{text}]({posixpath.relpath(target, folder or 'docs')}{anchor})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(rewritten, part) for part in parts)


def _reference() -> str:
    names = [each.__name__ for each in optimizers().values()]
    others = [name for name in extrap_kernels.__all__ if name not in names]
    modules = [
        "extrap_kernels.options.ExtrapolationOptions",
        "extrap_kernels.optimizer.ExtrapOptimizer",
        *(f"extrap_kernels.{name}" for name in others),
        "extrap_kernels.distributed",
        "extrap_kernels.integrations.transformers",
        "extrap_kernels.integrations.lightning",
        "extrap_kernels.integrations.fastai",
        "extrap_kernels.integrations.skorch",
        "extrap_kernels.integrations.timm",
        "extrap_kernels.backends.resolve",
    ]
    every = [*(f"extrap_kernels.{name}" for name in names), *modules]
    return "\n\n".join(["# API reference", *(f"::: {name}" for name in every)]) + "\n"
