"""A client that is generated from the document."""

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Platform
from tests.servers.gateway.openapi.merging import chatting, merged
from tests.services import generated

_SCRIPT = """
import json, sys
import openapi_client
from openapi_client import models

with openapi_client.ApiClient(openapi_client.Configuration(host=sys.argv[1])) as client:
    predict = openapi_client.PredictApi(client)
    platform = openapi_client.PlatformApi(client)
    request = models.SomeVllmChatCompletionRequest.from_dict(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    )
    try:
        openapi_client.InferenceApi(client).create_embedding(
            models.AllMinilmL6V2InputRequest(model="nobody", input=models.AllMinilmL6V2InputRequestInput("x"))
        )
    except openapi_client.ApiException as problem:
        error = [problem.status, problem.data.error.message]
    print(json.dumps({
        "echo": predict.predict_echo({"input": 7}),
        "ready": platform.get_ready().ready,
        "models": [model.name for model in platform.get_status().models],
        "error": error,
        "chat": json.loads(request.to_json())["messages"],
    }))
"""


@pytest.mark.long
def test_a_client_that_is_generated_from_it_works(
    small: Platform, live: dict[str, Any], of_vllm: dict[str, Any], tmp_path: Path
) -> None:
    own = merged(chatting("some-vllm", of_vllm))
    both = {**own, "paths": own["paths"] | live["paths"], "components": {**own["components"]}}
    both["components"]["schemas"] = own["components"]["schemas"] | live["components"]["schemas"]
    client = generated.generate(both, tmp_path)
    answers = generated.call(client, _SCRIPT, small.url)
    assert answers["echo"] == {"output": 7}
    assert answers["ready"] is True
    assert answers["models"] == list(small.status())
    assert answers["error"][0] == 404
    assert "'nobody'" in answers["error"][1]
    assert answers["chat"] == [{"role": "user", "content": "hi"}]
