//! What each job asked: how often, for how many names, and which addresses it was told.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use policy::NameLimits;

/// The window of [`NameLimits::names_per_minute`].
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered with their names, for each job.
const TOLD: usize = 256;
/// TCP connections that one job may hold to the resolver at once.
const CONNECTIONS: u32 = 16;

/// One job's questions.
#[derive(Debug)]
pub(super) struct Asked {
    /// Questions that may still be asked now, in billionths.
    tokens: u64,
    refilled: Instant,
    /// Names that were asked for in the last minute, and when last.
    names: HashMap<Arc<str>, Instant>,
    told: HashMap<IpAddr, Arc<str>>,
    /// Oldest first.
    order: VecDeque<IpAddr>,
    connections: u32,
    /// When a limit was last written about.
    complained: Option<Instant>,
}

const ONE: u64 = 1_000_000_000;

impl Asked {
    pub(super) fn new(limits: &NameLimits, now: Instant) -> Self {
        Self {
            tokens: u64::from(limits.per_second).saturating_mul(ONE),
            refilled: now,
            names: HashMap::new(),
            told: HashMap::new(),
            order: VecDeque::new(),
            connections: 0,
            complained: None,
        }
    }

    /// One question more. `false`: too many.
    pub(super) fn question(&mut self, limits: &NameLimits, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.refilled).min(WINDOW);
        self.refilled = now;
        let rate = u64::from(limits.per_second);
        let refill = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX).saturating_mul(rate);
        self.tokens = self.tokens.saturating_add(refill).min(rate.saturating_mul(ONE));
        match self.tokens.checked_sub(ONE) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// The world is to be asked for this name. `false`: it is one too many.
    pub(super) fn name(&mut self, name: &str, limits: &NameLimits, now: Instant) -> bool {
        if let Some(at) = self.names.get_mut(name) {
            *at = now;
            return true;
        }
        let most = usize::try_from(limits.names_per_minute).unwrap_or(usize::MAX);
        if self.names.len() >= most {
            self.names.retain(|_, at| now.saturating_duration_since(*at) < WINDOW);
        }
        if self.names.len() >= most {
            return false;
        }
        self.names.insert(name.into(), now);
        true
    }

    /// The job was told that a name has these addresses.
    pub(super) fn tell(&mut self, name: &Arc<str>, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            if self.told.insert(address, Arc::clone(name)).is_none() {
                self.order.push_back(address);
            }
            if self.order.len() > TOLD
                && let Some(oldest) = self.order.pop_front()
            {
                self.told.remove(&oldest);
            }
        }
    }

    /// The name under which the job was last told of an address.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<Arc<str>> {
        self.told.get(&address).cloned()
    }

    pub(super) fn connect(&mut self) -> bool {
        let free = self.connections < CONNECTIONS;
        self.connections += u32::from(free);
        free
    }

    pub(super) fn disconnect(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// Whether a tripped limit is to be written about: once a second, or the log would be flooded instead.
    pub(super) fn complain(&mut self, now: Instant) -> bool {
        let due =
            self.complained.is_none_or(|at| now.saturating_duration_since(at) >= Duration::from_secs(1));
        if due {
            self.complained = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: NameLimits =
        NameLimits { name_bytes: 60, labels: 5, per_second: 3, names_per_minute: 2, response_bytes: 512 };

    #[test]
    fn questions_come_back_with_time() {
        let start = Instant::now();
        let mut asked = Asked::new(&LIMITS, start);
        let ask = |asked: &mut Asked, at: u64| asked.question(&LIMITS, start + Duration::from_millis(at));
        assert_eq!([0; 4].map(|at| ask(&mut asked, at)), [true, true, true, false]);
        assert_eq!([333, 334, 335].map(|at| ask(&mut asked, at)), [false, true, false]);
        assert_eq!([3_600_000; 4].map(|at| ask(&mut asked, at)), [true, true, true, false], "no hoarding");
    }

    #[test]
    fn names_are_counted_once_and_for_a_minute() {
        let start = Instant::now();
        let mut asked = Asked::new(&LIMITS, start);
        let ask = |asked: &mut Asked, name: &str, at: u64| {
            asked.name(name, &LIMITS, start + Duration::from_secs(at))
        };
        assert!(ask(&mut asked, "a", 0) && ask(&mut asked, "b", 10) && ask(&mut asked, "a", 20));
        assert!(!ask(&mut asked, "c", 30) && ask(&mut asked, "b", 30));
        assert!(!ask(&mut asked, "c", 79), "both are still young");
        assert!(ask(&mut asked, "c", 81) && ask(&mut asked, "b", 81));
        assert!(!ask(&mut asked, "a", 82));
    }

    #[test]
    fn told_addresses_are_bounded_and_the_latest_name_counts() {
        let mut asked = Asked::new(&LIMITS, Instant::now());
        let address = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        asked.tell(&"first".into(), (0..10).map(address));
        asked.tell(&"second".into(), [address(3)].into_iter());
        assert_eq!(asked.name_of(address(3)).as_deref(), Some("second"));
        asked.tell(&"many".into(), (10..10_000).map(address));
        assert_eq!((asked.told.len(), asked.order.len()), (TOLD, TOLD));
        assert_eq!(asked.name_of(address(3)), None);
        assert_eq!(asked.name_of(address(9_999)).as_deref(), Some("many"));
    }

    #[test]
    fn connections_are_few() {
        let mut asked = Asked::new(&LIMITS, Instant::now());
        assert_eq!((0..20).filter(|_| asked.connect()).count(), 16);
        asked.disconnect();
        assert!(asked.connect() && !asked.connect());
    }
}
