"""Stores behind URIs (s3://, gs://, https:// ...), through fsspec: opening, naming, trying again, and faults in words.

In: a URI, also a chained one (zip://clip.mp4::s3://bucket/clips.zip). Credentials and other options of a store come
from fsspec's own configuration and from the store's own environment. Local paths never come here.
"""

import errno
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from stages.errors import ConfigError, DecodeError, ExplainError

ATTEMPTS = 4
BACKOFF_S = 0.5  # before the second attempt; doubles with each further one
_LOCAL = ("file://", "local://")
_WEB = ("http://", "https://")

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """What a store's error means. `is_passing`: another attempt may help."""

    fact: str
    remedy: str
    is_passing: bool = False


def is_remote(name: str) -> bool:
    """Whether a source or a run folder is named by a URI that is not a local file's."""
    return "://" in name and not name.startswith(_LOCAL)


def local_name(name: str) -> str:
    """The path in a file:// URI; any other name as it is."""
    for scheme in _LOCAL:
        if name.startswith(scheme):
            path = name.removeprefix(scheme)
            return path if Path(path).exists() else unquote(path)
    return name


def name_of(name: str) -> str:
    """The file name at the end of a path or URI, without what chains, query and fragment add to it."""
    if not is_remote(name):
        return Path(local_name(name)).name
    first, _, tail = name.partition("::")
    uri = first if "://" in first else tail.partition("::")[0]
    if uri.startswith(_WEB):
        uri = uri.partition("?")[0].partition("#")[0]
    scheme, _, path = uri.partition("://")
    return PurePosixPath(unquote(path) if f"{scheme}://" in _WEB else path).name


def has_pattern(uri: str) -> bool:
    """Whether a URI is a glob. In web addresses ? begins the query and brackets are plain."""
    first = uri.partition("::")[0]
    if first.startswith(_WEB):
        return "*" in first.partition("?")[0]
    return any(letter in first for letter in "*?[")


def is_web(uri: str) -> bool:
    """Whether the store is a web server: it tells files from folders only by a slash at the end."""
    return uri.startswith(_WEB)


def open_store(uri: str, kind: type[ExplainError] = DecodeError) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it. Raises `kind` where it cannot be had.

    It has forgotten what it listed: fsspec keeps file systems, and what they list, for as long as a process lives.
    """

    def opened() -> tuple[Any, str]:
        import fsspec

        store, path = fsspec.core.url_to_fs(uri)
        store.invalidate_cache()
        return store, path

    return attempt(uri, opened, kind)


def attempt(uri: str, action: Callable[[], T], kind: type[ExplainError] = DecodeError) -> T:
    """The answer of a store, asked again after faults that may pass. Raises `kind` with the fault in words."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return action()
        except ExplainError:
            raise
        except Exception as error:
            fault = fault_of(uri, error)
            if not fault.is_passing or number == ATTEMPTS:
                raise kind(uri, fault.fact, fault.remedy) from error
            logger.info("uri=%s attempt %d: %s", uri, number, fault.fact)
            time.sleep(BACKOFF_S * 2 ** (number - 1))
    raise AssertionError("the last attempt returns or raises")


def fault_of(uri: str, error: Exception) -> Fault:
    """What went wrong with a store, and what to try."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # over the web, fsspec calls every fault so and chains the true one
    scheme = uri.partition("://")[0].rpartition("::")[2]
    said = " ".join(str(error).split())[:200]
    if isinstance(error, ImportError):
        return Fault(f"{scheme}:// needs a package that is not installed", _package(scheme, said))
    if isinstance(error, ValueError) and "Protocol not known" in said:
        return Fault(f"{scheme}:// is not a protocol that is known here", "check the spelling of the URI")
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Fault("there is no such file or folder", "check the URI")
    # What fsspec raises, and web servers answer, where a store is there but cannot be listed or written to.
    if isinstance(error, NotImplementedError) or status in (405, 501):
        return Fault(f"{scheme}:// cannot do that ({said or 'not supported'})", "choose another store")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Fault("there is no space for its local copy", "free some, or set HEATREEL_CACHE_DIR to another disk")
    kind = type(error).__name__
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in kind or "Auth" in kind:
        return Fault(f"access is denied ({said or kind})", "check the credentials (docs/usage.md, Remote files)")
    is_passing = not (status is not None and 400 <= status < 500 and status not in (408, 425, 429))
    detail = f"{kind}: {said}" if said else kind
    return Fault(f"the store does not answer as it should ({detail})", "check the address and the network", is_passing)


def _status(error: Exception) -> int | None:
    """The HTTP status that a store's client tells of: aiohttp's, gcsfs's, botocore's."""
    response = getattr(error, "response", None)
    told = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, Mapping) else None
    found = (getattr(error, "status", None), getattr(error, "code", None), told)
    return next((status for status in found if isinstance(status, int)), None)


def expect_remote(uri: str) -> None:
    """Raise ConfigError for a URI that names a store and nothing in it."""
    if not name_of(uri):
        raise ConfigError(uri, "the URI names no folder", "give one such as s3://bucket/runs/name")


def _package(scheme: str, said: str) -> str:
    from fsspec.registry import known_implementations

    package = known_implementations.get(scheme, {}).get("class", "fsspec").partition(".")[0]
    return f"pip install {package}" if package != "fsspec" else said or "see fsspec's documentation"
