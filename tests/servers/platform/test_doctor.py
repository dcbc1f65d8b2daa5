"""`litport doctor` on this machine."""

import re
from pathlib import Path

from tests.conftest import litport
from tests.services.front_door import open_door
from tests.services.ports import port_in_use
from tests.services.tiny_engine import TinyEngine


def test_the_doctor_says_what_is_here_and_finds_a_port_in_use(tmp_path: Path) -> None:
    with port_in_use() as port:
        environ = {"LITPORT_SERVER__PORT": str(port), "XDG_CACHE_HOME": str(tmp_path)}
        ended = litport("doctor", environ=environ)
    assert ended.returncode == 1
    for word in ("cores", "memory", "GPU", "vllm", "litserve", "torch", "would choose"):
        assert word in ended.stdout
    assert f"wrong: port {port} of 127.0.0.1 is in use" in ended.stdout


def test_the_doctor_finds_nothing_wrong_with_a_port_that_litport_has(tmp_path: Path) -> None:
    with open_door(tmp_path, TinyEngine("one")) as door:
        ended = litport("doctor", environ={"LITPORT_SERVER__PORT": str(door.port), "XDG_CACHE_HOME": str(tmp_path)})
    assert re.search(rf"^serves +Litport \S+ with one at http://127.0.0.1:{door.port} *$", ended.stdout, re.MULTILINE)
    assert "in use" not in ended.stdout
