"""Figures for people: memory and durations, in as few characters as tell enough."""

_GIB = 1024**3


def gib(size_bytes: int | None) -> str:
    """The size in GiB; "-" for an unknown one."""
    return "-" if size_bytes is None else f"{size_bytes / _GIB:.{1 if size_bytes > _GIB / 10 else 2}f}"


def span(seconds: float) -> str:
    """A duration in its largest unit that gives at least 2."""
    for unit, size_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.0f} s"
