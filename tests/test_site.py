"""The pages as a site: `make docs` builds it without a warning, and its links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="mkdocs is missing; make test installs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_in_the_navigation(site):
    html = (site / "index.html").read_text()
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/generated/**/*.md")]:
        target = page.relative_to(ROOT / "docs").with_suffix("").as_posix() + "/"
        assert f'href="{target}"' in html, page
    for added in ("contributing/", "changelog/", "reference/"):
        assert f'href="{added}"' in html


def test_links_and_images_lead_to_files(site):
    checked = 0
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # whose links begin at the root of a server
            continue
        for link in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', page.read_text()):
            target = (page.parent / link).resolve()
            assert target.is_file() or (target / "index.html").is_file(), (page, link)
            checked += 1
    assert checked > 500


def test_reference_has_every_option(site):
    html = (site / "reference" / "index.html").read_text()
    for name in ("ExtrapSGD", "ExtrapLAMB", "create", "release_gradients", "extrap_norm", "state_dtype"):
        assert name in html
    assert ":class:" not in html and ":func:" not in html
