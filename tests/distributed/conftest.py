"""The engine's fixtures."""

from engine_fixtures import clips_folder, make_config, open_run, root, warm_cache

__all__ = ["clips_folder", "make_config", "open_run", "root", "warm_cache"]
