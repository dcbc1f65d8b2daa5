"""Models from the hub, through huggingface-hub with the user's endpoint, token and offline switch.

`snapshot_download` can neither resume a file after its process was killed nor check a SHA-256. This module downloads
file by file, and gives a file its final name only when size and hash are right. Code, pickled weights and duplicates of
the weights are not downloaded.
"""

import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.store import convert, disk, weights
from servers.store.errors import SourceError
from servers.store.manifest import FetchedModel
from servers.store.progress import TICK_S, Progress, Report
from servers.store.sources import HubSource

_CONTACT_TIMEOUT_S = 5.0  # a hub that cannot be reached must not hold up the next source
_CONNECTIONS = 4
_COMMIT = re.compile(r"[0-9a-f]{40}")
_GGUF_GROWTH = 4  # of 4-bit weights in 16 bits; the converter checks the exact size


@dataclass(frozen=True)
class _RemoteFile:
    name: str
    size_bytes: int
    sha256: str | None  # known for large files only


def fetch(source: HubSource, work_dir: Path, report: Report) -> FetchedModel:
    """Download the model's files below `work_dir`, continuing an earlier attempt at the same commit.

    GGUF weights are converted to safetensors. Raises SourceError and UserError.
    """
    report(Progress("checking", f"looking for {source} on the hub"))
    with _hub_errors(source):
        commit, files = _list_files(source)
        choice = weights.from_repository(files)
        downloads = [files[name] for name in choice.files]
        folder = work_dir / commit
        _remove_old_files(work_dir, keep=folder)
        total_bytes = sum(file.size_bytes for file in downloads)
        headroom_bytes = _GGUF_GROWTH * total_bytes if choice.kind == "gguf" else 0
        disk.require_space(folder, total_bytes - disk.folder_bytes(folder) + headroom_bytes)
        report(Progress("downloading", f"downloading {source} ({disk.human(total_bytes)}) from the hub"))
        _download(source, commit, downloads, folder, report)
    sha256 = {file.name: file.sha256 for file in downloads if file.sha256}
    if choice.kind == "gguf":
        model_dir = work_dir / "model"
        model_dir.mkdir()
        convert.run("gguf", folder / choice.weights[0], model_dir, report)
        for name in filter(weights.is_licence, choice.side_files):
            (folder / name).rename(model_dir / Path(name).name)
        folder = model_dir
    return FetchedModel(folder, str(source), commit, sha256)


def _list_files(source: HubSource) -> tuple[str, dict[str, _RemoteFile]]:
    try:
        from huggingface_hub import HfApi  # its import fails where HF_ENDPOINT is no address

        info = HfApi().model_info(
            source.repo_id, revision=source.revision, files_metadata=True, timeout=_CONTACT_TIMEOUT_S
        )
    except (KeyError, TypeError, ValueError):  # a login page of the network, for instance
        raise SourceError("what answers is not a hub", "check HF_ENDPOINT and the network") from None
    if not _COMMIT.fullmatch(info.sha or ""):
        raise SourceError("its answer names no commit", "check HF_ENDPOINT")
    files = {}
    for sibling in info.siblings or ():
        if sibling.size is None:
            raise SourceError(f"its answer names no size of {sibling.rfilename}", "check HF_ENDPOINT")
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        files[sibling.rfilename] = _RemoteFile(sibling.rfilename, sibling.size, sha256)
    return str(info.sha), files


def _remove_old_files(work_dir: Path, keep: Path) -> None:
    """Remove the files of other commits and of interrupted conversions."""
    keep.mkdir(parents=True, exist_ok=True)
    for path in work_dir.iterdir():
        if path != keep:
            shutil.rmtree(path)


def _download(source: HubSource, commit: str, files: list[_RemoteFile], folder: Path, report: Report) -> None:
    bar = _StopBar()
    with ThreadPoolExecutor(_CONNECTIONS) as executor:
        running = {executor.submit(_download_one, source, commit, file, folder, bar) for file in files}
        try:
            total_bytes = sum(file.size_bytes for file in files)
            while True:
                futures, running = wait(running, TICK_S, FIRST_EXCEPTION)
                for future in futures:
                    future.result()
                report(Progress("downloading", None, disk.folder_bytes(folder), total_bytes))
                if not running:
                    return
        except BaseException:
            bar.stop.set()
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _download_one(source: HubSource, commit: str, file: _RemoteFile, folder: Path, bar: "_StopBar") -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # documented, though not marked as exported
        build_hf_headers,
    )

    path = folder / file.name
    if path.exists():  # it got this name after its check
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".incomplete")
    if part.exists() and part.stat().st_size > file.size_bytes:
        part.unlink()
    with part.open("ab") as stream:
        http_get(
            hf_hub_url(source.repo_id, file.name, revision=commit),
            stream,
            resume_size=stream.tell(),
            # A compressed transfer could not be resumed.
            headers={**build_hf_headers(), "Accept-Encoding": "identity"},
            expected_size=file.size_bytes,
            tqdm_class=lambda **_: bar,  # type: ignore[arg-type]  # documented: "or at least mimic its behavior"
        )
    if file.sha256 and (digest := disk.sha256(part)) != file.sha256:
        part.unlink()
        raise SourceError(f"{file.name} has sha256 {digest}, expected {file.sha256}", "pull again")
    part.rename(path)


class _StopBar:
    """Stands in for huggingface-hub's progress bar: it draws nothing, and raises to stop a download."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def __enter__(self) -> "_StopBar":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, _: float | None = None) -> None:
        if self.stop.is_set():
            raise SourceError("stopped")


@contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    """Turn the errors of huggingface-hub into a SourceError with cause and advice."""
    import httpx2  # the HTTP client of huggingface-hub
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise SourceError("offline (HF_HUB_OFFLINE is set)", "unset it") from None
    except errors.GatedRepoError:
        advice = f"accept the terms of {source.repo_id} on the hub, then set HF_TOKEN"
        raise SourceError("access is gated", advice) from None
    except errors.RevisionNotFoundError:
        raise SourceError(f"no revision {source.revision or 'main'!r}", "check what follows the @") from None
    except errors.RepositoryNotFoundError:
        advice = "check the name; set HF_TOKEN if it is private; a local folder is written ./folder"
        raise SourceError(f"no repository {source.repo_id!r}, or none that you may see", advice) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        is_temporary = status == 429 or status >= 500
        advice = "try again later" if is_temporary else "check HF_TOKEN and HF_ENDPOINT"
        raise SourceError(f"the hub answered HTTP {status}", advice) from None
    except httpx2.HTTPError as error:
        advice = "check the network, the proxy settings and HF_ENDPOINT; what is here already is kept"
        cause = "not reachable"
        if isinstance(error, httpx2.ReadTimeout):
            cause = "it did not answer in time"
        elif isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
            cause = "it broke off its answer"
        raise SourceError(f"{cause} ({type(error).__name__})", advice) from None
    except OSError as error:
        if error.errno is not None:
            raise
        # `http_get` raises this when a file ends too early or too late.
        raise SourceError("it sent a file of another size than it announced", "pull again") from None
