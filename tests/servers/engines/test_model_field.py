"""The model's name is replaced where it stands, whatever surrounds it."""

import json

import pytest

from servers.engines.model_field import name_model

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"model":"a","n":1}', b'{"model":"NEW","n":1}'),
        (b'{ "n":1,\n "model" : "a" }', b'{ "n":1,\n "model" : "NEW" }'),
        (b'{"model":null}', b'{"model":"NEW"}'),
        (b"{}", b'{"model":"NEW"}'),
        (b' {"n": 1}', b' {"model":"NEW","n": 1}'),
        (b'{"in":{"model":"b"},"model":"a"}', b'{"in":{"model":"b"},"model":"NEW"}'),
        (b'{"in":[{"model":"b"}]}', b'{"model":"NEW","in":[{"model":"b"}]}'),
        (rb'{"text":"\"model\": \"b\"","model":"a"}', rb'{"text":"\"model\": \"b\"","model":"NEW"}'),
        (rb'{"text":"\\","model":"a\"b"}', rb'{"text":"\\","model":"NEW"}'),
        (rb'{"text":"}{[\\\"{","model":"a"}', rb'{"text":"}{[\\\"{","model":"NEW"}'),
        (rb'{"mo\u0064el":"a"}', rb'{"mo\u0064el":"NEW"}'),
        (rb'{"model":"a","\u006dode\u006C":"b"}', rb'{"model":"NEW","\u006dode\u006C":"NEW"}'),
        (b'{"models":"a","x":"model"}', b'{"model":"NEW","models":"a","x":"model"}'),
    ],
)
def test_of_an_object(body: bytes, named: bytes) -> None:
    assert name_model(body, JSON, "NEW") == named
    assert json.loads(named)["model"] == "NEW"


def test_a_name_is_quoted() -> None:
    assert json.loads(name_model(b'{"model":"a"}', JSON, 'a "b"\\'))["model"] == 'a "b"\\'


def test_of_a_form() -> None:
    parts = b'--X\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = parts % (b"file", b'name="model"') + parts % (b"model", b"a") + b"--X--\r\n"
    named = name_model(body, "multipart/form-data; boundary=X", "NEW")
    assert named == body.replace(b"\r\n\r\na\r\n", b"\r\n\r\nNEW\r\n")
