//! Whether the system killed a process for want of memory.

/// How many processes this machine killed since it started because it, or a part of it that has a
/// limit of its own, had run out of memory; `None` where the system does not tell.
pub(crate) fn kills_for_memory() -> Option<u64> {
    kills(&std::fs::read_to_string("/proc/vmstat").ok()?)
}

fn kills(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_counts_its_kills() {
        assert_eq!(kills("nr_free_pages 815\noom_kill 3\ndrop_pagecache 0\n"), Some(3));
        assert_eq!(kills("nr_free_pages 815\n"), None);
    }
}
