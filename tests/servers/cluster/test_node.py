"""A node of a Ray cluster gets the safe defaults, whatever the environment says."""

from pathlib import Path

import pytest

from configs.errors import UserError
from servers.cluster import node


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("f00d" * 16)
    file.chmod(0o600)
    return file


def test_no_environment_turns_authentication_off(token_file: Path) -> None:
    hostile = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_AUTH_TOKEN": "another",
        "RAY_USAGE_STATS_ENABLED": "1",
        "HOME": "/",
    }
    assert node.node_environment(hostile, token_file) == {
        "HOME": "/",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_failure_threshold": "3",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_worker_niceness": "0",
    }


def test_health_checks_may_be_set(token_file: Path) -> None:
    environment = node.node_environment({"RAY_health_check_period_ms": "500"}, token_file)
    assert environment["RAY_health_check_period_ms"] == "500"


def test_a_token_that_may_not_be_used_is_refused(tmp_path: Path, token_file: Path) -> None:
    with pytest.raises(UserError, match="got No such file"):
        node.node_environment({}, tmp_path / "nowhere")
    token_file.chmod(0o622)
    with pytest.raises(UserError, match="others may write"):
        node.node_environment({}, token_file)
    token_file.write_text("\n")
    with pytest.raises(UserError, match="got an empty file"):
        node.node_environment({}, token_file)


@pytest.mark.parametrize(("head", "address"), [(True, "10.0.0.1:6379"), (False, None)])
def test_a_node_is_a_head_or_joins(head: bool, address: str | None, token_file: Path) -> None:
    with pytest.raises(UserError, match="either --head, or --address"):
        node.start(head, address, token_file, [])
