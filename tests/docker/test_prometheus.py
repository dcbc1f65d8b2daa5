"""Prometheus' own tool accepts the configuration, and the rules do what their tests say."""

import re
import shutil
import subprocess

import pytest

from tests.docker import series
from tests.docker.queries import DOCKER

FOLDER = DOCKER / "prometheus"
PROMTOOL = shutil.which("promtool")
WITH_PROMTOOL = pytest.mark.skipif(PROMTOOL is None, reason="NOT TESTED: Prometheus' rules, as promtool is missing")
TESTS = sorted((FOLDER / "tests").glob("*.yml"))


def promtool(*arguments: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@WITH_PROMTOOL
def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


@WITH_PROMTOOL
def test_the_rules_do_what_their_tests_say() -> None:
    promtool("test", "rules", *map(str, TESTS))


def test_every_alert_is_tested_firing_and_not() -> None:
    text = (FOLDER / "tests" / "alerts.yml").read_text(encoding="utf-8")
    for name in _alerts():
        assert re.search(rf"alertname: {name},[^\n]*exp_alerts: \[\]", text), f"{name} is not tested not to fire"
        assert re.search(rf"alertname: {name}\n +eval_time: .*\n +exp_alerts:\n +- exp_labels", text), (
            f"{name} is not tested to fire"
        )


def test_every_alert_says_what_and_how_bad_and_leads_to_its_section() -> None:
    page = (DOCKER.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    sections = {re.sub(r"[^\w-]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    for name, alert in _alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert {"summary", "description"} < alert["annotations"].keys(), name
        path, _, section = alert["annotations"]["runbook"].partition("#")
        assert path == "docs/observability.md"
        assert section in sections, name


def test_every_series_of_litports_own_is_in_the_documentation() -> None:
    page = (DOCKER.parent / "docs" / "observability.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`((?:litport|litserve)_\w+)", page))
    own = {name for name in series.families() if name.startswith(("litport_", "litserve_"))}
    assert told == own


def _alerts() -> dict[str, dict[str, dict[str, str]]]:
    return {rule["alert"]: rule for rule in series.rules() if "alert" in rule}
