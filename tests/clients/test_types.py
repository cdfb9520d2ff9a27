"""The clients' types, as those see them who write against them with a type checker at hand."""

import re
from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]


def test_the_code_of_the_manuals_passes_a_type_checker(tmp_path: Path) -> None:
    for page in ("acting", "watching"):
        blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE | re.DOTALL)
        (tmp_path / f"{page}.py").write_text("\n".join(blocks))
    # Bodies in JSON are of any type.
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--no-warn-return-any", "--cache-dir", str(tmp_path)]
    told, _, status = api.run([*options, *map(str, tmp_path.glob("*.py"))])
    assert status == 0, told
