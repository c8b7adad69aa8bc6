"""Free memory is what the machine, its limits and the job's own request leave."""

import psutil

from safety_regions.model.free_memory import CPU, free_bytes, left_to_groups


def test_the_limits_of_control_groups_are_found(tmp_path):
    """The limits of a group and its parents are found in cgroup v1 and v2, and the file cache counts as free memory."""
    own = tmp_path / "cgroup"
    first, second = tmp_path / "memory" / "jobs" / "7", tmp_path / "a" / "b"
    for folder in (first, second):
        folder.mkdir(parents=True)
    own.write_text("4:cpu,cpuacct:/elsewhere\n3:memory:/jobs/7\n0::/a/b\n")
    (first / "memory.limit_in_bytes").write_text("900\n")
    (first / "memory.usage_in_bytes").write_text("500\n")
    (first / "memory.stat").write_text("inactive_file 30\nactive_file 10\nanon 5\n")
    (second / "memory.max").write_text("max\n")
    (second.parent / "memory.max").write_text("1000\n")
    (second.parent / "memory.current").write_text("100\n")
    assert list(left_to_groups(own, tmp_path)) == [440, 900]
    assert list(left_to_groups(tmp_path / "none", tmp_path)) == []


def test_a_request_is_a_limit_and_what_is_held_counts():
    held = psutil.Process().memory_info().rss
    left = free_bytes(CPU, limit=held + 50_000_000)
    assert 0 < left < 400_000_000
    assert free_bytes(CPU, limit=1) == 0 < free_bytes(CPU)
