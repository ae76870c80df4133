"""`ltx2tui cache`: make the cache of a config without training, look for damage in it, remove what is not needed, say how large it is."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ltx2core.config.load import load_config
from ltx2core.errors import RunError
from ltx2core.runs.events import Notice
from ltx2core.runs.folder import list_runs
from ltx2core.runs.journal import Entry
from ltx2tui.headless import PlainLines, Printer
from ltx2tui.launches import root_of
from ltx2tui.words import count, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ltx2core.caching.manage import Damage
    from ltx2core.config.load import LoadedConfig
    from ltx2core.runs.events import Event
    from ltx2core.runs.folder import RunFolder
    from ltx2core.training.prepare import Prepared


def run(arguments: argparse.Namespace) -> int:
    loaded = None if arguments.config is None else load_config(arguments.config)
    root = root_of(loaded, asked=arguments.asked_root)
    actions = {"cache build": _build, "cache verify": _verify, "cache prune": _prune, "cache stat": _stat}
    return actions[arguments.words](loaded, root, arguments)


def _build(loaded: LoadedConfig | None, root: Path, arguments: argparse.Namespace) -> int:
    assert loaded is not None  # argparse asks for it
    notices: list[Notice] = []
    tell = _collect(notices) if arguments.json else _print()
    for notice in loaded.notices:
        tell(notice)
    prepared = _prepare(loaded, root, tell)
    missing = prepared.names() - prepared.store.names()
    cached = prepared.cache()
    kinds = Counter(kind for kind, path in prepared.store.entries() if path.stem in missing)
    made = {kind: kinds[kind] for kind in ("video", "mask", "features", "audio", "text")}
    if arguments.json:
        _write({"cache": str(prepared.store.root), "clips": len(cached.clips), "made": made, "notices": [asdict(one) for one in notices]})
        return 0
    text = ", ".join(f"{number} {kind}" for kind, number in made.items() if number) or "nothing was missing"
    sys.stdout.write(f"{prepared.store.root} holds all that {count(len(cached.clips), 'clip')} need; made now: {text}.\n")
    return 0


def _verify(loaded: LoadedConfig | None, root: Path, arguments: argparse.Namespace) -> int:
    from ltx2core.caching.manage import verify_cache
    from ltx2core.caching.store import Store

    store, seen = Store(root / "cache"), 0

    def looked_at(done: int) -> None:
        nonlocal seen
        seen = done

    prepared = None if loaded is None else _prepare(loaded, root, lambda _: None)
    damaged = [*verify_cache(store, on_entry=looked_at), *_damaged_weights(root, prepared)]
    compared = [] if prepared is None else list(prepared.compare(most=max(arguments.clips, 0)))
    unlike = [one for one in compared if not one.is_good]
    if arguments.json:
        entries = [{"path": str(one.path), "reason": one.reason} for one in damaged]
        _write({"cache": str(store.root), "entries": seen, "damaged": entries, "clips": [asdict(one) for one in compared]})
    else:
        sys.stdout.writelines(f"{one.path} is damaged: {one.reason}.\n" for one in damaged)
        for one in compared:
            found = one.problem if one.decibels is None else f"{one.decibels:.1f} dB" + ("" if one.is_good else ": not that clip")
            sys.stdout.write(f"{one.name} {one.bucket}: {found}\n")
        works = "Delete them: the next run, or `ltx2tui cache build`, makes them again." if damaged else "All can be used."
        sys.stdout.write(f"{count(seen, 'entry', 'entries')} read whole in {store.root}, {len(damaged)} damaged. {works}\n")
    return 1 if damaged or unlike else 0


def _prune(loaded: LoadedConfig | None, root: Path, arguments: argparse.Namespace) -> int:
    from ltx2core.caching.manage import prune_cache
    from ltx2core.caching.store import Store

    if training := next((folder for folder in list_runs(root) if folder.is_alive()), None):
        raise RunError(f"The run {training.name!r} reads this cache now.", fix="Wait until it has ended, or stop it first.")
    store, runs = Store(root / "cache"), {folder.name: _needs(folder) for folder in list_runs(root)}
    keep = {name for names in runs.values() for name in names}
    prepared = None if loaded is None else _prepare(loaded, root, lambda _: None)
    if prepared is not None:
        keep |= prepared.names()
    elif not keep and store.names():
        raise RunError(
            f"Nothing says what is needed of {store.root}: no run reads it.", fix="Give a config with --config, or delete the folder."
        )
    pruned = prune_cache(store, keep=keep, only_list=arguments.list)
    weights = _prune_weights(loaded, root, prepared, only_list=arguments.list)
    known = [name for name, names in runs.items() if names]
    if arguments.json:
        kinds = {one.kind: {"entries": one.entries, "bytes": one.file_bytes} for one in pruned.kinds}
        left = len(store.names()) - (pruned.entries if arguments.list else 0)
        amounts = {"removed": pruned.entries, "bytes": pruned.file_bytes, "kinds": kinds, "leftovers": pruned.leftovers, "kept": left}
        files = {"files": list(weights), "bytes": sum(weights.values())}
        _write({"cache": str(store.root), "only_listed": arguments.list, **amounts, "weights": files, "runs": known})
        return 0
    for one in pruned.kinds:
        if one.entries:
            sys.stdout.write(f"  {one.kind:<8} {count(one.entries, 'entry', 'entries'):>16}  {size(one.file_bytes)}\n")
    if pruned.leftovers:
        sys.stdout.write(f"  {count(pruned.leftovers, 'file')} that were never finished  {size(pruned.leftover_bytes)}\n")
    what = "would be removed" if arguments.list else "removed"
    sys.stdout.writelines(f"  {path}: rounded weights, {size(file_bytes)}, {what}\n" for path, file_bytes in weights.items())
    kept = len(store.names()) - (pruned.entries if arguments.list else 0)
    of = f", what {count(len(known), 'run')} read among them" if known else ""
    sys.stdout.write(
        f"{count(pruned.entries, 'entry', 'entries')} {what} from {store.root}, {size(pruned.file_bytes)}; {kept} are kept{of}.\n"
    )
    return 0


def _needs(folder: RunFolder) -> list[str]:
    """The names of the entries that a run reads; empty for one that never came so far, or does not say it."""
    try:
        names = json.loads(folder.cached.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _stat(loaded: LoadedConfig | None, root: Path, arguments: argparse.Namespace) -> int:
    from ltx2core.caching.manage import measure_cache
    from ltx2core.caching.store import Store

    store = Store(root / "cache")
    sizes = measure_cache(store)
    prepared = None if loaded is None else _prepare(loaded, root, lambda _: None)
    needed = None if prepared is None else prepared.names()
    there, weights = store.names(), _weights(root, prepared)
    if arguments.json:
        kinds = {one.kind: {"entries": one.entries, "bytes": one.file_bytes} for one in sizes}
        config = None if needed is None else {"needs": len(needed), "missing": len(needed - there), "not_needed": len(there - needed)}
        _write({"cache": str(store.root), "kinds": kinds, "weights": weights, "config": config})
        return 0
    sys.stdout.write(f"{store.root}\n")
    for one in sizes:
        sys.stdout.write(f"  {one.kind:<6} {count(one.entries, 'entry', 'entries'):>16}  {size(one.file_bytes)}\n")
    sys.stdout.writelines(f"  {path}: rounded weights, {size(file_bytes)}\n" for path, file_bytes in weights.items())
    if needed is not None:
        missing, other = len(needed - there), len(there - needed)
        sys.stdout.write(
            f"The config needs {count(len(needed), 'entry', 'entries')}: {missing} missing. It does not need {other} others.\n"
        )
    return 0


def _weights(root: Path, prepared: Prepared | None) -> dict[str, int]:
    """Files of rounded weights below the cache, and beside the config's checkpoint, and their bytes."""
    folder = root / "cache" / "weights"
    if prepared is None and not folder.is_dir():
        return {}
    from ltx2core.training.rounded_weights import rounded_files

    return {str(path): path.stat().st_size for path in rounded_files(folder, None if prepared is None else prepared.checkpoint)}


def _damaged_weights(root: Path, prepared: Prepared | None) -> list[Damage]:
    from ltx2core.caching.manage import Damage
    from ltx2core.models.rounded_file import verify_rounded

    found = ((Path(name), verify_rounded(Path(name))) for name in _weights(root, prepared))
    return [Damage(path=path, reason=reason) for path, reason in found if reason is not None]


def _prune_weights(loaded: LoadedConfig | None, root: Path, prepared: Prepared | None, *, only_list: bool) -> dict[str, int]:
    """Remove files of rounded weights that neither the config nor a run asks for; their bytes, by path."""
    from ltx2core.planning.wishes import storage_of
    from ltx2core.training.rounded_weights import unneeded_files

    precisions = [_precision(folder) for folder in list_runs(root)]
    keep = {storage_of(name) for name in precisions if name is not None}
    if loaded is not None and loaded.config.keep_rounded_weights:
        keep.add(storage_of(loaded.config.base_model_precision))
    unneeded = unneeded_files(root / "cache" / "weights", None if prepared is None else prepared.checkpoint, keep)
    sizes = {str(path): path.stat().st_size for path in unneeded}
    if not only_list:
        for path in unneeded:
            path.unlink(missing_ok=True)
    return sizes


def _precision(folder: RunFolder) -> str | None:
    """The base_model_precision of a run; None where its config does not say it."""
    try:
        value = json.loads(folder.config.read_text(encoding="utf-8")).get("base_model_precision")
    except (OSError, ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _prepare(loaded: LoadedConfig, root: Path, tell: Callable[[Event], None]) -> Prepared:
    from ltx2core.training.prepare import prepare  # loads torch

    return prepare(loaded, root=root, emit=tell, should_stop=lambda: False)  # Ctrl-C ends the process: entries are written whole


def _collect(notices: list[Notice]) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event)

    return tell


def _print() -> Callable[[Event], None]:
    """Says events as `train --headless` does."""
    printer, lines = Printer(), PlainLines()

    def tell(event: Event) -> None:
        for line in lines.after([Entry(time.time(), event)], now=time.monotonic()):
            printer.line(line)

    return tell


def _write(value: object) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")
