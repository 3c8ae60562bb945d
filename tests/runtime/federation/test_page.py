"""What the tutorial, the units and the compose files show is what Flower's own parsers take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from flwr.common.config import parse_config_args
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from runtime.federation.credentials import Credentials

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tutorials" / "federation.md"
FILES = sorted(PAGE.with_suffix("").iterdir())
START = "python -m runtime.federation "


def commands() -> list[tuple[str, list[str]]]:
    """Where each SuperLink and SuperNode is started, and the words of the command."""
    found = [(PAGE.name, line) for line in PAGE.read_text().splitlines() if line.startswith(START)]
    for path in FILES:
        if path.suffix == ".service":
            text = path.read_text().replace("\\\n", " ")
            found += [(path.name, line) for line in text.splitlines() if START in line]
        elif path.suffix == ".yaml":
            services = yaml.safe_load(path.read_text())["services"]
            found += [(path.name, each["command"]) for each in services.values()]
    words = [(name, shlex.split(text[text.index(START) :])[3:]) for name, text in found]
    return [(name, each) for name, each in words if each[0] in ("superlink", "supernode")]


def test_each_side_is_shown_by_hand_as_a_unit_and_as_a_container() -> None:
    shown = sorted((name, words[0]) for name, words in commands())
    assert shown == [
        ("federation.md", "superlink"),
        ("federation.md", "supernode"),
        ("federation.md", "supernode"),
        ("learngene-superlink.service", "superlink"),
        ("learngene-supernode.service", "supernode"),
        ("node.compose.yaml", "supernode"),
        ("server.compose.yaml", "superlink"),
    ]
    linked = set(re.findall(r"\]\(federation/([\w.-]+)\)", PAGE.read_text()))
    assert linked == {path.name for path in FILES}


@pytest.mark.parametrize(("name", "words"), commands())
def test_flower_takes_the_options(name: str, words: list[str]) -> None:
    made = Credentials(Path("keys"))
    if words[0] == "superlink":
        options = _parse_args_run_superlink().parse_args(words[1:])
        assert options.enable_supernode_auth and not options.insecure and options.database
        files = (options.ssl_ca_certfile, options.ssl_certfile, options.ssl_keyfile)
        due = (made.authority, made.certificate, made.key)
        assert [Path(each).name for each in files] == [each.name for each in due]
        return
    options = _parse_args_run_supernode().parse_args(words[1:])
    assert options.host == "127.0.0.1" and not options.insecure
    assert Path(options.root_certificates).name == made.authority.name
    config = parse_config_args([options.node_config])
    assert config["num-partitions"] == 2 and str(config["data-root"]).startswith("/")
    number = int(str(config["partition-id"])) + 1
    assert Path(options.auth_supernode_private_key).name == made.node(number).name
