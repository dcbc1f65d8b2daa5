"""The same LitAPI in one of the peers, for `benchmarks.experiments.peers`; it runs in whatever environment has them.

    python peer_servers.py loop|litserve|mosec|triton|bentoml  embedding|image  FOLDER PORT BATCH VARIANT PATH...

VARIANT has fields of `servers.apis.equality.Variant` as JSON. Packages that it lacks come from the PATHs; PYTHONPATH
would give them to Triton's own Python as well. `loop` serves nothing: for each line with a number of seconds on its
input it answers made requests in batches for that long, and prints how many.
"""

import base64
import io
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from typing import Any

# Two processes or threads, each computing on one core, as Litport's recipes for two cores.
_WORKERS = 2
_MOST_WAIT_MS = 10


class Model:
    """The built-in LitAPI of a kind, called as its worker calls it, with `batch` requests at most together."""

    def __init__(self, kind: str, folder: str, batch: int, variant: str = "{}") -> None:
        self._kind = kind
        self._batch = batch
        self._api = _make_api(kind, folder, variant, max_batch_size=max(batch, 2))
        self._api.setup("cpu")

    def answer(self, bodies: list[bytes]) -> list[dict[str, Any]]:
        """The answers to JSON bodies; for embeddings each `embeddings` is a list of one vector."""
        requests = [self._api.decode_request(self._parse(body)) for body in bodies]
        return [self._api.encode_response(output) for output in self._api.predict(requests)]

    def _parse(self, body: bytes) -> Any:
        from servers.apis.embedding import InputRequest
        from servers.apis.picture_request import PictureRequest

        document = json.loads(body)
        if self._kind == "embedding":
            return InputRequest.model_validate(document)
        return PictureRequest(base64.b64decode(document["image"]), 5)


def _make_api(kind: str, folder: str, variant: str, **batches: Any) -> Any:
    from servers.apis.embedding import EmbeddingAPI
    from servers.apis.equality import Variant
    from servers.apis.image_classification import ImageClassificationAPI

    classes = {"embedding": EmbeddingAPI, "image": ImageClassificationAPI}
    api: Any = classes[kind](folder, **batches)
    api.variant = Variant(**json.loads(variant))
    return api


def bodies(kind: str, seed: int) -> Iterator[bytes]:
    """JSON requests without an end: a text of 16 to 64 words, or one of 16 pictures of 320x240."""
    draw = random.Random(seed)  # noqa: S311 # a workload must be repeatable
    words = ("river", "stone", "light", "garden", "winter", "paper", "music", "bridge", "window", "morning", "silver")
    pictures = [_picture(draw) for _ in range(16)] if kind == "image" else []
    while True:
        if kind == "embedding":
            text = " ".join(draw.choices(words, k=draw.randint(16, 64)))
            yield json.dumps({"input": text, "model": "all-minilm-l6-v2"}).encode()
        else:
            yield json.dumps({"image": draw.choice(pictures)}).encode()


def _picture(draw: random.Random) -> str:
    from PIL import Image

    file = io.BytesIO()
    small = Image.frombytes("RGB", (20, 15), draw.randbytes(20 * 15 * 3))
    small.resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def _loop(kind: str, folder: str, port: int, batch: int, variant: str) -> None:
    model = Model(kind, folder, batch, variant)
    requests = bodies(kind, port)
    model.answer([next(requests) for _ in range(batch)])
    print("ready", flush=True)
    for line in sys.stdin:
        count, end_s = 0, time.monotonic() + float(line)
        while time.monotonic() < end_s:
            model.answer([next(requests) for _ in range(batch)])
            count += batch
        print(count, flush=True)


def _litserve(kind: str, folder: str, port: int, batch: int, variant: str) -> None:
    import litserve

    from servers.engines.litserve.fallback import without_mcp

    api = _make_api(kind, folder, variant, max_batch_size=batch, batch_timeout=_MOST_WAIT_MS / 1000)
    without_mcp()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=_WORKERS)
    server.run(host="127.0.0.1", port=port, generate_client_file=False)


def _mosec(kind: str, folder: str, port: int, batch: int, variant: str) -> None:
    import mosec

    class PeerWorker(mosec.Worker):  # type: ignore[misc] # in another environment
        """JSON in, JSON out."""

        def __init__(self) -> None:
            super().__init__()
            self._model = Model(kind, folder, batch, variant)

        def deserialize(self, data: bytes) -> bytes:
            return data

        def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
            return self._model.answer(data)

    sys.argv = [sys.argv[0], "--port", str(port), "--address", "127.0.0.1", "--timeout", "60000"]
    server = mosec.Server()
    server.append_worker(
        PeerWorker, num=_WORKERS, max_batch_size=batch, max_wait_time=_MOST_WAIT_MS, start_method="fork"
    )
    server.run()


def _triton(kind: str, folder: str, port: int, batch: int, variant: str) -> None:
    import numpy as np
    from pytriton.decorators import batch as batched
    from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
    from pytriton.triton import Triton, TritonConfig

    @batched  # type: ignore[untyped-decorator] # in another environment
    def infer(body: Any) -> list[Any]:
        answers = model.answer([row[0] for row in body])
        if kind == "embedding":
            return [np.array([answer["embeddings"][0] for answer in answers], np.float32)]
        return [np.array([[json.dumps(answer).encode()] for answer in answers], np.object_)]

    model = Model(kind, folder, batch, variant)
    output = Tensor(name="answer", dtype=np.float32, shape=(-1,))
    if kind == "image":
        output = Tensor(name="answer", dtype=bytes, shape=(1,))
    settings = ModelConfig(max_batch_size=batch, batcher=DynamicBatcher(_MOST_WAIT_MS * 1000))
    config = TritonConfig(http_port=port, http_address="127.0.0.1", allow_grpc=False, allow_metrics=False)
    with Triton(config=config) as triton:
        inputs = [Tensor(name="body", dtype=bytes, shape=(1,))]
        triton.bind("model", [infer] * _WORKERS, inputs=inputs, outputs=[output], config=settings)
        triton.serve()


def _bentoml(kind: str, folder: str, port: int, batch: int, variant: str) -> None:
    given = {"kind": kind, "folder": folder, "batch": batch, "variant": variant, "workers": _WORKERS, "paths": paths}
    environ = {**os.environ, "PEER": json.dumps(given), "BENTOML_DO_NOT_TRACK": "True"}
    target = ["benchmarks.experiments.bento_service:Peer", "--working-dir", paths[0]]
    words = ["-m", "bentoml", "serve", *target, "--port", str(port), "--host", "127.0.0.1"]
    os.chdir(paths[0])
    os.execve(sys.executable, [sys.executable, *words], environ)  # noqa: S606 # its own command line


if __name__ == "__main__":
    peer, requested_kind, model_folder, port_text, batch_text, variant_json, *paths = sys.argv[1:]
    sys.path.extend(paths)
    peers = {"loop": _loop, "litserve": _litserve, "mosec": _mosec, "triton": _triton, "bentoml": _bentoml}
    peers[peer](requested_kind, model_folder, int(port_text), int(batch_text), variant_json)
