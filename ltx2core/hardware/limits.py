"""How much memory and how many cores this process may use: the smaller of the machine's and the container's (cgroup v1 and v2)."""

from __future__ import annotations

import os
from pathlib import Path

UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2**63 for "no limit"


def memory_limit(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that the tightest cgroup above this process allows; None without a limit."""
    folders = _folders(proc, root, "memory")
    limits = [value for folder in folders for name in ("memory.max", "memory.limit_in_bytes") if (value := _bytes(folder / name))]
    # v1 tells here what groups above allow that a container does not see
    limits += [
        value for folder in folders[:1] if (value := _stat(folder / "memory.stat", "hierarchical_memory_limit")) and value < UNLIMITED
    ]
    return min(limits, default=None)


def swap_limit(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of swap that the tightest cgroup above this process allows, 0 where it forbids swapping; None without a limit."""
    limits = []
    for folder in _folders(proc, root, "memory"):
        if (swap := _bytes(folder / "memory.swap.max")) is not None:
            limits.append(swap)
        both, memory = _bytes(folder / "memory.memsw.limit_in_bytes"), _bytes(folder / "memory.limit_in_bytes")
        if both is not None and memory is not None:  # v1 counts memory and swap together
            limits.append(max(0, both - memory))
    return min(limits, default=None)


def memory_used(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes used by this process's own cgroup, without file pages that can be dropped at once; None when it does not say."""
    for folder in _folders(proc, root, "memory"):
        for name in ("memory.current", "memory.usage_in_bytes"):
            if (used := _bytes(folder / name)) is not None:
                stat = folder / "memory.stat"
                inactive = _stat(stat, "total_inactive_file")  # v1, its groups below counted
                return max(0, used - (inactive if inactive is not None else _stat(stat, "inactive_file") or 0))
    return None


def available_memory() -> int:
    """Bytes that this process may still take before the machine, or its container, has none left."""
    import psutil

    free, limit = int(psutil.virtual_memory().available), memory_limit()
    return free if limit is None else min(free, max(0, limit - (memory_used() or 0)))


def locked_for(size: int) -> int:
    """Bytes that PyTorch page-locks for an array of so many: the next power of two, all of which is memory that nothing else can have."""
    return 1 << max(0, size - 1).bit_length()


def lock_limit() -> int | None:
    """Bytes of memory that this process may lock by the system's rule (`ulimit -l`); None without a limit, or such a rule."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def cpu_limit(*, proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores' worth of time that the tightest cgroup allows (2.5 is two and a half); None without a limit."""
    limits = [cores for folder in _folders(proc, root, "cpu") if (cores := _cores(folder)) is not None]
    return min(limits, default=None)


def affinity_cores() -> int:
    """Cores that this process is allowed on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def locked_limit() -> int | None:
    """Bytes that this process may lock in memory by itself (ulimit -l); None without a limit, or where there is no such thing."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY or soft >= UNLIMITED else soft


def usable_cores() -> int:
    """Cores that this process may run on at once, at least 1: affinity and the container's quota considered."""
    allowed, quota = affinity_cores(), cpu_limit()
    return max(1, min(allowed, int(quota) if quota is not None and quota >= 1 else allowed))


def _folders(proc: Path, root: Path, controller: str) -> list[Path]:
    """The cgroup folders of this process, its own first and then each above it."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        own = base / path.lstrip("/")
        if not own.is_dir():  # a container sees its own group as the root, and the host's path is not there
            own = base
        while True:
            folders.append(own)
            if own == base or base not in own.parents:
                break
            own = own.parent
    return folders


def _bytes(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None
    return value if value < UNLIMITED else None


def _stat(path: Path, name: str) -> int | None:
    """A number of a memory.stat file; None where it has none of that name."""
    try:
        pairs = dict(line.split() for line in path.read_text().splitlines())
        return int(pairs[name])
    except (OSError, ValueError, KeyError):
        return None


def _cores(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us, period_us = _bytes(folder / "cpu.cfs_quota_us"), _bytes(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None
