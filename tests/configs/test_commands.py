"""What `litport config show` prints."""

from configs.commands import listing
from tests.configs.conftest import Load


def test_show_prints_every_value_with_its_origin(load_two: Load) -> None:
    lines = listing(load_two("--server.port", "81")).splitlines()
    assert [line.split() for line in lines if line.startswith(("server.host", "server.port"))] == [
        ["server.host", "127.0.0.1", "default"],
        ["server.port", "81", "command", "line", "--server.port"],
    ]
    args = next(line for line in lines if ".args." in line)
    assert args.startswith("models.smollm2-135m-instruct.args.max-model-len")
    assert args.endswith("two.yaml:6")


def test_show_masks_secrets_and_what_is_named_like_one(load_two: Load) -> None:
    loaded = load_two(
        "--auth.api_keys=hunter2-and-longer",
        "--limits.redis_url=redis://:hunter2@store:6379/1",
        "--models.org/v1.5-mini.env.HF_TOKEN=hunter2",
        "--models.smollm2-135m-instruct.args.hf-token=hunter2",
        "--models.org/v1.5-mini.init.password=hunter2",
        "--models.smollm2-135m-instruct.args.max-num-batched-tokens=512",
    )
    text = listing(loaded)
    assert "hunter2" not in text
    assert text.count("**********") == 5
    assert " 512 " in text


def test_only_on_a_terminal_defaults_are_dim(load_two: Load) -> None:
    loaded = load_two("--server.port", "81")
    assert "\x1b" not in listing(loaded)
    dim = [line for line in listing(loaded, colour=True).splitlines() if line.startswith("\x1b[2m")]
    assert dim
    assert all("  default" in line for line in dim)
