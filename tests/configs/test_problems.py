"""Every wrong setting is one line that names key, value, source and what would be right."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from configs.errors import SettingsError, UserError
from tests.configs.conftest import Load

SMOL = "LITPORT_MODELS__SMOLLM2_135M_INSTRUCT__"
CHAT = "--models.smollm2-135m-instruct."
MINI = "--models.org/v1.5-mini."


@dataclass(frozen=True)
class Wrong:
    """A mistake, and the parts its line must have: key, value, source, suggestion."""

    parts: tuple[str, ...]
    more: str | None = None
    overrides: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)


def in_recipe(text: str, *parts: str) -> Wrong:
    return Wrong((*parts, "later.yaml:"), more=text)


def in_environment(name: str, value: str, *parts: str) -> Wrong:
    return Wrong((*parts, f"from environment {name}"), environ={name: value})


def on_command_line(words: str, *parts: str) -> Wrong:
    return Wrong((*parts, "from command line"), overrides=tuple(words.split(" ")))


WRONG = [
    # misspelt keys in a recipe
    in_recipe("server:\n  prot: 8000\n", "server.prot: no such setting", "did you mean server.port?", "8000", ":2"),
    in_recipe("sever:\n  port: 8000\n", "sever: no such setting", "did you mean server?", "mapping"),
    in_recipe("port: 8000\n", "port: no such setting", "did you mean server.port?", "8000"),
    in_recipe("server.port: 8000\n", "server.port: no such setting", "write it nested", "8000"),
    in_recipe("telemetry: {level: info}\n", "telemetry.level", "did you mean telemetry.log_level?", "info"),
    in_recipe("limits: {max_body_byte: 5}\n", "limits.max_body_byte", "did you mean limits.max_body_bytes?", "5"),
    in_recipe("models: {a: {engin: vllm, source: x}}\n", "models.a.engin", "did you mean models.a.engine?", "vllm"),
    in_recipe(
        "models: {a: {engine: vllm, source: x, max_batch_size: 8}}\n", "models.a.max_batch_size", "engine, source", "8"
    ),
    # wrong types and impossible values in a recipe
    in_recipe("server:\n  port: eighty\n", "server.port: expected a whole number from 0 to 65535, got 'eighty'", ":2"),
    in_recipe("server: {port: 65536}\n", "server.port: expected a whole number from 0 to 65535", "65536"),
    in_recipe("server: {port: [80]}\n", "server.port: expected a whole number", "80"),
    in_recipe("server: {port: {public: 80}}\n", "server.port: expected a whole number", "a mapping"),
    in_recipe(
        "models: {a: {engine: litserve, api: x:Y, replicas: {min: 3, max: 2, target_running: 1}}}\n",
        "models.a.replicas: expected a max that is not below min, got min 3 and max 2",
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: x:Y, replicas: {max: 99, target_running: 1}}}\n",
        "models.a.replicas.max: expected a whole number from 1 to 64, got 99",
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: x:Y, replicas: {max: 2}}}\n",
        "models.a.replicas.target_running: missing; expected a number above 0",
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: x:Y, replicas: {max: 2, target_running: 1, target: 1}}}\n",
        "models.a.replicas.target: no such setting; did you mean models.a.replicas.target_running?",
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: x:Y, replicas: true}}\n",
        "models.a.replicas: expected a whole number from 1 to 64 or a mapping of min, max, target_running",
    ),
    in_recipe("server: {port: null}\n", "server.port: expected a whole number", "null"),
    in_recipe(
        "server: {host: 'http://here'}\n", "server.host: expected a host name", "such as 127.0.0.1", "http://here"
    ),
    in_recipe("server: {host: 'here:80'}\n", "server.host: expected a host name", "no scheme or port", "here:80"),
    in_recipe("server: {drain_timeout_s: -1}\n", "server.drain_timeout_s: expected a number of 0 or more", "'-1'"),
    in_recipe("server: {drain_timeout_s: inf}\n", "server.drain_timeout_s: expected a number", "'inf'"),
    in_recipe("server: {cache_dir: /dev/null/x}\n", "server.cache_dir: expected a folder", "/dev/null is a file"),
    in_recipe("server: 8000\n", "server: expected a mapping of names to values", "8000"),
    in_recipe("models: {a: vllm}\n", "models.a: expected a mapping of names to values", "vllm"),
    in_recipe("models: {a: }\n", "models.a: expected a mapping of names to values"),
    in_recipe("models: {a: {engine: litserve, api: echo, aliases: ['a b']}}\n", "models.a.aliases", "a model name"),
    in_recipe("telemetry: {log_level: inof}\n", "telemetry.log_level: expected one of", "did you mean info?", "'inof'"),
    in_recipe("limits: {request_timeout_s: 0}\n", "limits.request_timeout_s: expected a number above 0 or null", "'0'"),
    in_recipe("limits: {max_body_bytes: 64MB}\n", "limits.max_body_bytes: expected a whole number", "'64MB'"),
    in_recipe("models: {a: {engine: vlm, source: x}}\n", "models.a.engine", "did you mean vllm?", "'vlm'"),
    in_recipe("models: {a: {source: x}}\n", "models.a.engine: missing", "expected one of vllm, litserve"),
    in_recipe("models: {a: {engine: vllm}}\n", "models.a.source: missing", "catalog name"),
    in_recipe("models: {a: {engine: vllm, source: ''}}\n", "models.a.source: expected text that is not empty", "''"),
    in_recipe("models: {/a: {engine: litserve, api: echo}}\n", "models./a: expected a model name", "'/a'"),
    in_recipe("models: {a/../b: {engine: litserve, api: echo}}\n", "models.a/../b: expected a model name", "'..'"),
    in_recipe("models: {a: {engine: litserve, api: ./a.py}}\n", "models.a.api", "./file.py:Class", "'./a.py'"),
    in_recipe(
        "models: {a: {engine: litserve, api: echo, batch_timeout_s: 0.1}}\n",
        "models.a.batch_timeout_s",
        "set max_batch_size to 2 or more",
        "'0.1'",
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: echo, source: x, init: {model_dir: y}}}\n", "models.a.init", "keep one"
    ),
    in_recipe(
        "models: {a: {engine: litserve, api: echo, devices: [0, one]}}\n", "models.a.devices", '["0", "one"]', "a list"
    ),
    in_recipe("models: {a: {engine: litserve, api: echo, devices: []}}\n", "models.a.devices: expected", "[]"),
    in_recipe("models: {a: {engine: vllm, source: x, devices: [[]]}}\n", "models.a.devices: expected", "[[]]"),
    in_recipe("models: {a: {engine: litserve, api: echo, env: {A-B: 1}}}\n", "models.a.env.A-B", "digits and '_'"),
    in_recipe("auth: {api_keys: hunter2}\n", "auth.api_keys: expected a list", "*****"),
    in_recipe("auth: {api_keys: [hunter 2]}\n", "auth.api_keys: expected keys of visible ASCII", "*****"),
    in_recipe("auth: {api_keys: [hunter2]}\n", "number 1 has 7", "*****"),
    in_recipe(
        "auth: {api_keys: [hunter2-and-longer, hunter2-and-longer]}\n",
        "auth.api_keys: expected different keys",
        "*****",
    ),
    in_recipe("models: {a: {engine: remote, url: 'http://x', apikee: hunter2}}\n", "a.api_key?", "*****"),
    in_recipe("models: {a: {engine: remote, url: 'http://x', api_key: [hunter2]}}\n", "expected text", "*****"),
    in_recipe("models: {a: {engine: remote, url: 'http://x', api_key: hunter 2}}\n", "visible ASCII", "*****"),
    in_recipe("limits: {redis_url: redis-of-hunter2}\n", "limits.redis_url: expected redis://[USER", "*****"),
    in_recipe("limits: {redis_url: 'redis://:hunter2@host:x'}\n", "limits.redis_url: expected redis://[USER", "*****"),
    in_recipe("limits: {redis_url: 'redis://a?password=hunter2'}\n", "limits.redis_url: expected redis://", "*****"),
    in_recipe("auth: {api_key: hunter2}\n", "auth.api_key: no such", "did you mean auth.api_keys?", "*****"),
    # vLLM options that are Litport's to set, and one option twice
    in_recipe(
        "models: {a: {engine: vllm, source: x, args: {port: 81}}}\n", "models.a.args.port", "set server.port", "81"
    ),
    in_recipe(
        "models:\n  a:\n    engine: vllm\n    source: x\n    args: {max-model-len: 1, max_model_len: 2}\n",
        "models.a.args.max_model_len: set before, as max-model-len on line 5",
        "keep one",
        "2",
        ":5",
    ),
    # what is no settings file
    in_recipe("server:\n  port: 1\n  port: 2\n", "server.port: set before, as port on line 2", "2", ":3"),
    in_recipe("server: {port: 1\n", "expected YAML", "check indentation"),
    in_recipe("server:\n\tport: 1\n", "expected YAML", "check indentation", ":2"),
    in_recipe("- server\n", "settings: expected a mapping", "a list"),
    in_recipe("server\n", "settings: expected a mapping", "'server'"),
    in_recipe("server: {? [a] : 1}\n", "server: expected a name before the colon"),
    in_recipe("models: {a: &a {engine: litserve, api: echo, example: *a}}\n", "nested more than 50 deep"),
    in_recipe("models: {a: {engine: litserve, api: echo, example: !!python/name:x y}}\n", "models.a.example", "YAML"),
    in_recipe("auth: {api_keys: [*hunter2]}\n", "expected YAML", "undefined alias"),
    # the environment
    in_environment("LITPORT_SERVER__PORT", "eighty", "server.port: expected a whole number", "'eighty'"),
    in_environment("LITPORT_SERVER__PORT", "", "server.port: expected a whole number", "''"),
    in_environment(
        "LITPORT_SERVR__PORT", "80", "LITPORT_SERVR__PORT: no such", "did you mean LITPORT_SERVER__PORT?", "80"
    ),
    in_environment("LITPORT_SERVER_PORT", "80", "LITPORT_SERVER_PORT", "did you mean LITPORT_SERVER__PORT?", "80"),
    in_environment("LITPORT_PORT", "80", "LITPORT_PORT", "did you mean LITPORT_SERVER__PORT?", "80"),
    in_environment("LITPORT_XYZZY", "80", "LITPORT_XYZZY: no such setting", "has server, models, limits", "80"),
    in_environment("LITPORT_API_KEY", "hunter2", "LITPORT_API_KEY", "did you mean LITPORT_AUTH__API_KEYS?", "*****"),
    in_environment("LITPORT_AUTH", "hunter2", "auth: expected a mapping", "*****"),
    in_environment("LITPORT_AUTH__TOKENS", "hunter2", "LITPORT_AUTH__TOKENS: no such setting", "has api_keys", "*****"),
    in_environment("LITPORT_AUTH__API_KEYS", "[hunter2", "auth.api_keys: expected YAML", "quote", "*****"),
    in_environment(
        "LITPORT_MODELS__SMOLLM_135M_INSTRUCT__SOURCE", "x", "no such model", f"did you mean {SMOL}SOURCE?", "'x'"
    ),
    in_environment(
        "LITPORT_MODELS__OTHER__SOURCE", "x", "the models are smollm2", "__OTHER__ENGINE would add one", "'x'"
    ),
    in_environment("LITPORT_MODELS__OTHER__ENGINE", "vlm", "models.other.engine", "did you mean vllm?", "'vlm'"),
    in_environment(f"{SMOL}ARGS__PORT", "81", f"{SMOL}ARGS__PORT", "set server.port", "81"),
    in_environment(f"{SMOL}REQUIRED", "maybe", "required: expected true or false", "'maybe'"),
    Wrong(
        ("LITPORT_SECRETS_DIR: expected a folder", "'/no/such'", "from environment", "unset it"),
        environ={"LITPORT_SECRETS_DIR": "/no/such"},
    ),
    # the command line
    on_command_line("--server.port eighty", "server.port: expected a whole number", "'eighty'"),
    on_command_line("--port 80", "--port: no such setting", "did you mean --server.port?", "80"),
    on_command_line("--server.port", "--server.port: expected a value", "--server.port=VALUE"),
    on_command_line("server.port", "server.port: expected --section.name", "--server.port 8080"),
    on_command_line("--server.port.public 80", "--server.port is one value", "80"),
    on_command_line(
        f"{MINI}max_batch-size 0", "models.org/v1.5-mini.max_batch_size: expected a whole number of 1", "'0'"
    ),
    on_command_line(f"{MINI}args.max-model-len 5", ".args.max-model-len: no such setting", "has engine, source", "5"),
    on_command_line("--models.org/v1.5.stream true", "no such model", "did you mean --models.org/v1.5-mini", "true"),
    on_command_line(f"{CHAT}args.served-model-name x", "Litport sets this option", "key under models", "'x'"),
    on_command_line(f"{CHAT}arg.seed 5", "no such setting", f"did you mean {CHAT}args.seed?", "5"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: "-".join(wrong.parts[:1])[:60])
def test_a_wrong_setting_is_one_line_with_key_value_source_and_advice(load_two: Load, wrong: Wrong) -> None:
    with pytest.raises(SettingsError) as caught:
        load_two(*wrong.overrides, more=wrong.more, environ=wrong.environ)
    (line,) = caught.value.problems
    assert "\n" not in line
    assert "hunter" not in line
    for part in wrong.parts:
        assert part in line, f"{part!r} is not in {line!r}"


@pytest.mark.parametrize(
    ("aliases", "problem"),
    [("[x, x]", "'x', an alias of models.a already"), ("[a]", "'a', the name of a model")],
)
def test_an_alias_is_the_name_of_one_model(load_two: Load, aliases: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_two(more=f"models: {{a: {{engine: litserve, api: echo, aliases: {aliases}}}}}\n")
    (line,) = caught.value.problems
    assert line.startswith(f"models: a.aliases: expected new names, got {problem} (from ")


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ("a: {engine: litserve, api: echo, fallback: b}", "expected the name of a model, got 'b'; there are "),
        (
            "a: {engine: litserve, api: echo, fallback: b}, b: {engine: litserve, api: echo, fallback: a}",
            "expected a line that ends, got the circle a -> b -> a",
        ),
        (
            "a: {engine: litserve, api: embedding, fallback: b, embeds_token_ids: true}, "
            "b: {engine: litserve, api: embedding}",
            "expected models that take token ids too (embeds_token_ids)",
        ),
    ],
)
def test_a_model_falls_back_on_others_in_a_line_that_ends(load_two: Load, models: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_two(more=f"models: {{{models}}}\n")
    (line,) = caught.value.problems
    assert line.startswith(f"models: a.fallback: {problem}")


def test_a_recipe_that_is_not_there_is_told_with_the_one_that_was_meant(load_two: Load, recipe: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_two(recipes=[recipe.with_name("tow.yaml")])
    (line,) = caught.value.problems
    assert "tow.yaml: expected a recipe, got No such file" in line
    assert f"did you mean {recipe}?" in line
    with pytest.raises(SettingsError, match="give the path of a YAML file"):  # alike are only the ends of the names
        load_two(recipes=[recipe.with_name("nope.yaml")])


def test_a_recipe_in_another_encoding_is_one_line(load_two: Load, recipe: Path) -> None:
    latin = recipe.with_name("latin.yaml")
    latin.write_bytes(b"server: {host: caf\xe9}\n")
    with pytest.raises(SettingsError, match=r"latin.yaml: expected text in UTF-8, got other bytes"):
        load_two(recipes=[latin])


def test_a_folder_is_no_recipe(load_two: Load, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a recipe, got Is a directory"):
        load_two(recipes=[tmp_path])


def test_all_problems_are_told_at_once(load_two: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        load_two("--server.prot", "80", more="server: {host: ''}\n", environ={"LITPORT_LIMITS__MAX_BODY_BYTES": "0"})
    assert len(caught.value.problems) == 3
    assert str(caught.value).splitlines() == list(caught.value.problems)
    assert isinstance(caught.value, UserError)
