from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys
import ltx2core.data
for module in pkgutil.iter_modules(ltx2core.data.__path__):
    importlib.import_module(f"ltx2core.data.{module.name}")
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "diffusers", "transformers", "textual", "rich", "questionary"}))
"""


def test_the_data_side_loads_neither_torch_nor_a_screen() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
