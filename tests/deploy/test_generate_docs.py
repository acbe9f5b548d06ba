"""The generated parts of docs/: options, log events, files."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import ByteSize

from deploy.generate_docs import events, files, generated, options
from rfprotocol.settings.fields import Flag, Options


class Model(Options):
    size: Annotated[ByteSize, Flag("a size", (), "BYTES", "first")] = ByteSize(256 << 20)
    wait: Annotated[float, Flag("a | b", ("-w", "--wait"), "SECONDS", "second")] = 2.0
    mode: Annotated[Literal["fast", "safe"], Flag("how", group="second")] = "safe"
    loud: Annotated[bool, Flag("say more", group="second")] = False


def test_options__of_two_groups__have_a_table_each() -> None:
    assert options(Model).count("| key in the file | flag | default | meaning |") == 2


@pytest.mark.parametrize(
    "row",
    [
        "| `size` | `--size BYTES` | `256MiB` | a size |",
        r"| `wait` | `-w`, `--wait SECONDS` | `2` | a \| b |",
        "| `mode` | `--mode` | `safe` | how. One of `fast`, `safe` |",
        "| `loud` | `--loud` | no | say more |",
    ],
)
def test_options__each_kind__is_a_row(row: str) -> None:
    assert row in options(Model).splitlines()


def test_events__of_the_proxy__have_level_and_fields() -> None:
    assert "| `server_busy` | info | `node`, `command`, `epoch` |" in events("proxy/rfproxy").splitlines()


def test_files__listed__by_package() -> None:
    assert files().startswith("### `protocol/rfprotocol/`\n")
    assert "### `proxy/rfproxy/session/`\n" in files()


def test_generated__outside_of_the_marks__is_left_alone() -> None:
    text = "# Head\n\n<!-- generated: files -->\nold\n<!-- end -->\n\nfoot\n"
    assert generated(text) == f"# Head\n\n<!-- generated: files -->\n\n{files()}\n<!-- end -->\n\nfoot\n"
