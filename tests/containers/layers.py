"""What an image weighs, layer by layer, and every byte in it: `python -m tests.containers.layers litport:cpu`.

It exists because an engine tells sizes in rounded words, and because a secret that a later layer deletes is still
there. It reads what the engine exports, and refuses to trust the labels on it.
"""

import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.containers.engine import Engine, running

# What no layer may hold. The words that a package's own files need to speak of keys are not among them.
_SECRETS = re.compile(
    rb"-----BEGIN (?:RSA |EC |OPENSSH |)PRIVATE KEY-----\n[A-Za-z0-9+/]{40}|\bhf_[A-Za-z0-9]{34}\b|\bAKIA[0-9A-Z]{16}\b"
    rb"|\bghp_[A-Za-z0-9]{36}\b|://[^/\s:@\"'{}<>$%\[]{3,}:[^/\s@\"'{}<>$%]{8,}@(?!example|localhost|host|proxy|127)"
)
_PACKAGES = re.compile(r"(\./)?(usr|opt/venv/lib)/")
_FORBIDDEN = re.compile(r"(^|/)(\.env|\.netrc|\.git|\.pypirc|id_(rsa|ed25519)|keys\.yaml|\.ssh)(/|$)|^root/\.cache/.")


@dataclass(frozen=True)
class Layer:
    """One step of an image's history: what made it, and the bytes of its files, uncompressed."""

    command: str
    size_bytes: int


@dataclass(frozen=True)
class Contents:
    """An image from the inside: its layers from the bottom, its configuration, and what should not be there."""

    layers: list[Layer]
    configuration: str
    findings: list[str]

    @property
    def size_bytes(self) -> int:
        """All layers together, uncompressed."""
        return sum(layer.size_bytes for layer in self.layers)

    def table(self) -> str:
        """The layers and their sizes as Markdown."""
        rows = [f"| {layer.size_bytes / 1e6:,.1f} | `{layer.command[:100]}` |" for layer in self.layers]
        return "\n".join(["| MB | layer |", "|---|---|", *rows, f"| {self.size_bytes / 1e6:,.1f} | all |"])


def read(engine: Engine, image: str, secrets: tuple[bytes, ...] = ()) -> Contents:
    """Export an image and look at all of it; `secrets` are more strings that must not be in any layer."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        engine("save", "--output", str(archive), image, timeout_s=600)
        with tarfile.open(archive) as tar:
            [manifest] = json.loads(_member(tar, "manifest.json"))
            configuration = _member(tar, manifest["Config"]).decode()
            commands = [
                _plain(step.get("created_by", "imported"))
                for step in json.loads(configuration)["history"]
                if not step.get("empty_layer")
            ]
            findings = [f"configuration: {secret!r}" for secret in secrets if secret in configuration.encode()]
            layers = []
            for command, name in zip(commands, manifest["Layers"], strict=True):
                size_bytes = 0
                for path, size, finding in _files(tar, name, secrets):
                    size_bytes += size
                    findings += [f"{path}: {finding}"] if finding else []
                layers.append(Layer(command, size_bytes))
    return Contents(layers, configuration, findings)


def _files(image: tarfile.TarFile, layer: str, secrets: tuple[bytes, ...]) -> Iterator[tuple[str, int, str]]:
    with tarfile.open(fileobj=image.extractfile(layer), mode="r:*") as tar:
        for member in tar:
            if _FORBIDDEN.search(member.name):
                yield member.name, member.size, "should not be in an image"
            if not member.isfile():
                continue
            content = _member(tar, member)
            found = [secret.decode() for secret in secrets if secret in content]
            # A private key in a package's documentation or tests is public; ours would be where ours lie.
            if not _PACKAGES.match(member.name) and (seen := _SECRETS.search(content)):
                found.append(seen[0][:40].decode(errors="replace"))
            yield member.name, member.size, ", ".join(found)


def _member(tar: tarfile.TarFile, member: str | tarfile.TarInfo) -> bytes:
    opened = tar.extractfile(member)
    assert opened is not None
    return opened.read()


def _plain(command: str) -> str:
    return re.sub(r"\s+", " ", command.removeprefix("/bin/sh -c ").replace("# buildkit", "")).strip()


if __name__ == "__main__":
    with running() as engine:
        for image in sys.argv[1:]:
            print(f"{image}\n{read(engine, image).table()}\n")
