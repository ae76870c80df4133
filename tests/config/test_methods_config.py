"""Keys of losses, optimizers and adapters: what is said about those that have no effect or do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from ltx2core.config.load import LoadedConfig, load_config_dict


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)


def load(**keys: object) -> LoadedConfig:
    return load_config_dict(keys, base=Path.cwd(), datasets=[{"instance_data_dir": "clips"}])


def told(loaded: LoadedConfig, code: str) -> str:
    return " ".join(f"{notice.text} {notice.fix}" for notice in loaded.notices if notice.code == code)


def test_a_width_of_huber_beside_squares_is_named_and_beside_huber_it_is_not() -> None:
    assert "huber_c" in told(load(huber_c=0.3), "no_effect")
    assert load(huber_c=0.3, loss_type="huber").notices == ()
    assert load(snr_gamma=5, loss_type="smooth_l1", huber_schedule="constant").notices == ()
