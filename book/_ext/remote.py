"""Links to the repository, derived from its own remote and from nothing else.

The theme can link to the repository, to the editor of a page, to a form for feedback
and to Colab. Where the repository is, only the copy at hand knows: its remote
``origin``. A copy without one, or without git, shows none of these links.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

# The theme knows the addresses of these services' pages, wherever they are hosted.
PROVIDERS = ("github", "gitlab", "bitbucket")
GITHUB = re.compile(r"https://github\.com/([\w-]+)/([\w.-]+)")
COLAB = "https://colab.research.google.com"
REMOTE = re.compile(
    r"(?:(?:https?|ssh|git)://)?(?:[^/@\s]+@)?(?P<host>[\w.-]+\.\w+)(?::\d+(?=/))?[:/]"
    r"/?(?P<path>[\w.~-]+(?:/[\w.~-]+)+)/?"
)


def git(root: Path, *arguments: str) -> str:
    """What git says, or nothing, if it fails or is not there."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def web_address(remote: str) -> str:
    """The https form of a remote's address; empty for a folder or what is not known.

    A user's name or a token in the address is left out.
    """
    found = REMOTE.fullmatch(remote)
    path = found["path"].removesuffix(".git") if found else ""
    return f"https://{found['host']}/{path}" if found else ""


def repository(root: Path) -> str:
    """The address of the repository on the web; empty if this copy knows none.

    Only the copy's own git is asked, not that of a repository around it.
    """
    if not (root / ".git").exists():
        return ""
    return web_address(git(root, "remote", "get-url", "origin"))


def branch(root: Path) -> str:
    """The main branch of the remote, as far as this copy knows."""
    head = git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    return head.removeprefix("origin/") or "main"


def site_address(root: Path) -> str:
    """The address that GitHub Pages gives the repository; empty if there is none."""
    found = GITHUB.fullmatch(repository(root))
    return f"https://{found[1].lower()}.github.io/{found[2]}/" if found else ""


def options(root: Path) -> dict[str, Any]:
    """The theme's options for the links; none where there is no known address."""
    address = repository(root)
    host = address.removeprefix("https://").partition("/")[0]
    provider = next((name for name in PROVIDERS if name in host), None)
    if provider is None:
        return {}
    return {
        "repository_url": address,
        "repository_provider": provider,
        "repository_branch": branch(root),
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": provider != "bitbucket",
        # Colab reads notebooks from GitHub.
        "launch_buttons": {"colab_url": COLAB if GITHUB.fullmatch(address) else ""},
    }
