"""What a script makes of other files is what it would make of them today."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_protobuf_classes_are_those_of_the_proto_file(tmp_path: Path) -> None:
    subprocess.run([ROOT / "scripts" / "proto", tmp_path], check=True)
    made = sorted((tmp_path / "hub" / "protocol").iterdir())
    assert [path.name for path in made] == ["client_pb2.py", "client_pb2.pyi"]
    for path in made:
        assert path.read_text() == (ROOT / "hub" / "protocol" / path.name).read_text()
