"""What the processes of a service hold in memory."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> dict[int, int]:
    """Resident memory of a process and of all below it, by process id; empty when it is gone."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue  # it ended meanwhile
    family = [pid] if pid in parents else []
    for one in family:
        family += [child for child, parent in parents.items() if parent == one]
    found = {}
    for one in family:
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith("VmRSS:"):
                found[one] = int(line.split()[1]) * 1024
    return found
