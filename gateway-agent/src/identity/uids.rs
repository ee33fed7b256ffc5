//! Users of their own for jobs.

use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};

use super::EnrolError;
use crate::state::{Store, UidUse};

/// Chooses a uid that no job has and that no process runs with: one that was never used, or the one whose last job
/// began longest ago. The caller holds the lock under which jobs change.
///
/// # Errors
/// When every one of the range is in use, or /proc cannot be read.
pub(super) fn choose(range: &RangeInclusive<u32>, store: &dyn Store) -> Result<u32, EnrolError> {
    let known: HashMap<u32, UidUse> = store.uids()?.into_iter().map(|u| (u.uid, u)).collect();
    // The jobs' end is seen by their cgroups; a process that left its cgroup still runs.
    let running = running().map_err(|e| EnrolError::State(format!("looking at running processes: {e}")))?;
    best(range, &known, &running)
        .ok_or_else(|| EnrolError::NoUid(format!("{}-{}", range.start(), range.end())))
}

fn best(range: &RangeInclusive<u32>, known: &HashMap<u32, UidUse>, running: &HashSet<u32>) -> Option<u32> {
    let free = |uid: &u32| !running.contains(uid) && known.get(uid).is_none_or(|u| u.cgroup_id.is_none());
    range.clone().filter(free).min_by_key(|uid| known.get(uid).map_or(0, |u| u.number))
}

/// Real, effective, saved and file-system users of every process.
fn running() -> std::io::Result<HashSet<u32>> {
    let mut uids = HashSet::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
        // Gone meanwhile: then it has no user.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap_or_default();
        uids.extend(line.split_whitespace().filter_map(|u| u.parse::<u32>().ok()));
    }
    Ok(uids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_unused_for_longest_is_taken() {
        let range = 10..=13;
        let mut known = HashMap::new();
        let mut running = HashSet::new();
        assert_eq!(best(&range, &known, &running), Some(10));
        for (uid, cgroup_id, number) in [(10, None, 4), (11, Some(7), 1), (12, None, 3)] {
            known.insert(uid, UidUse { uid, cgroup_id, number });
        }
        assert_eq!(best(&range, &known, &running), Some(13), "never used");
        running.insert(13);
        assert_eq!(best(&range, &known, &running), Some(12), "11 has a job, and 10 was used later");
        running.extend([10, 12]);
        assert_eq!(best(&range, &known, &running), None);
    }

    #[test]
    fn this_process_is_seen() {
        assert!(running().unwrap().contains(&rustix::process::getuid().as_raw()));
    }
}
