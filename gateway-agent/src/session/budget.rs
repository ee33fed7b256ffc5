//! How many statements a job has run under a rule that limits them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use policy::{Bound, Bounded, Gate, Gates, Judgement, Planned};

/// Seconds that "a minute" spans.
const WINDOW: usize = 60;

/// Counts by job and rule. Lives as long as the agent: a restart begins anew.
pub struct Budgets {
    began: Instant,
    counts: Mutex<HashMap<u64, HashMap<Arc<str>, Count>>>,
}

struct Count {
    total: u64,
    /// Statements in each of the last seconds, by second modulo the window.
    seconds: [u64; WINDOW],
    /// The latest second that was counted in.
    at: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { began: Instant::now(), counts: Mutex::default() }
    }
}

impl Budgets {
    /// Counts statements against the limits on their number, unless `judged` or one of those says otherwise. `approved`:
    /// people agreed, so it counts whatever the limits say.
    pub fn spend(&self, job: u64, statements: &[&Gates], judged: Judgement, approved: bool) -> Judgement {
        self.spend_at(job, statements, judged, approved, self.began.elapsed().as_secs())
    }

    /// What counting would say, without counting.
    pub fn look(&self, job: u64, statements: &[&Gates], judged: Judgement) -> Judgement {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let none = HashMap::new();
        let of_job = counts.get(&job).unwrap_or(&none);
        judge(of_job, statements, &counted_by(statements), judged, self.began.elapsed().as_secs())
    }

    fn spend_at(
        &self,
        job: u64,
        statements: &[&Gates],
        judged: Judgement,
        approved: bool,
        now: u64,
    ) -> Judgement {
        let new = counted_by(statements);
        if new.is_empty() {
            return if approved { Judgement::Within } else { judged };
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = counts.entry(job).or_default();
        let judged = match approved {
            true => Judgement::Within,
            false => judge(of_job, statements, &new, judged, now),
        };
        if judged == Judgement::Within {
            for (rule, more) in new {
                of_job.entry(Arc::clone(rule)).or_insert_with(|| Count::new(now)).add(now, more);
            }
        }
        judged
    }

    /// Counts one request of a job against limits on their number a minute; none counts when one is exceeded, which is returned.
    pub fn request<'a>(&self, job: u64, limits: &'a [Bounded<u32>]) -> Result<(), &'a Bounded<u32>> {
        self.request_at(job, limits, self.began.elapsed().as_secs())
    }

    fn request_at<'a>(&self, job: u64, limits: &'a [Bounded<u32>], now: u64) -> Result<(), &'a Bounded<u32>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_job = counts.entry(job).or_default();
        let full = |limit: &&Bounded<u32>| {
            of_job.get(&limit.rule).is_some_and(|count| count.at(now).0 >= u64::from(limit.most))
        };
        if let Some(exceeded) = limits.iter().find(full) {
            return Err(exceeded);
        }
        for limit in limits {
            of_job.entry(Arc::clone(&limit.rule)).or_insert_with(|| Count::new(now)).add(now, 1);
        }
        Ok(())
    }

    /// The job is over.
    pub fn forget(&self, job: u64) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(&job);
    }
}

fn is_counted(gate: &&Gate) -> bool {
    matches!(gate.bound, Bound::PerMinute(_) | Bound::PerJob(_))
}

/// How many of these statements each rule counts.
fn counted_by<'a>(statements: &[&'a Gates]) -> HashMap<&'a Arc<str>, u64> {
    let mut new = HashMap::new();
    for gates in statements {
        let mut rules: Vec<_> = gates.before.iter().filter(is_counted).map(|gate| &gate.rule).collect();
        rules.sort();
        rules.dedup();
        rules.into_iter().for_each(|rule| *new.entry(rule).or_default() += 1);
    }
    new
}

/// What the limits say with so many `new` ones.
fn judge(
    of_job: &HashMap<Arc<str>, Count>,
    statements: &[&Gates],
    new: &HashMap<&Arc<str>, u64>,
    judged: Judgement,
    now: u64,
) -> Judgement {
    let gates = statements.iter().flat_map(|gates| &gates.before).filter(is_counted);
    gates.fold(judged, |judged, gate| {
        let more = new.get(&gate.rule).copied().unwrap_or_default();
        let (minute, total) = of_job.get(&gate.rule).map_or((0, 0), |count| count.at(now));
        let count = match gate.bound {
            Bound::PerMinute(_) => minute,
            _ => total,
        };
        judged.and(gate.judge(&Planned::Nothing, count + more))
    })
}

impl Count {
    fn new(now: u64) -> Self {
        Self { total: 0, seconds: [0; WINDOW], at: now }
    }

    /// In the window that ends now, and in all.
    fn at(&self, now: u64) -> (u64, u64) {
        let past = now.saturating_sub(self.at).min(WINDOW as u64);
        let gone: u64 = (1..=past).map(|ahead| self.seconds[slot(self.at + ahead)]).sum();
        (self.seconds.iter().sum::<u64>() - gone, self.total)
    }

    fn add(&mut self, now: u64, more: u64) {
        let past = now.saturating_sub(self.at).min(WINDOW as u64);
        (1..=past).for_each(|ahead| self.seconds[slot(self.at + ahead)] = 0);
        self.at = self.at.max(now);
        self.seconds[slot(self.at)] += more;
        self.total += more;
    }
}

fn slot(second: u64) -> usize {
    (second % WINDOW as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(bounds: &[Bound]) -> Gates {
        let before = bounds.iter().map(|bound| Gate { rule: "r".into(), bound: *bound, ask: None }).collect();
        Gates { before, ..Gates::default() }
    }

    fn fits(budgets: &Budgets, job: u64, statements: &[&Gates], now: u64) -> bool {
        budgets.spend_at(job, statements, Judgement::Within, false, now) == Judgement::Within
    }

    #[test]
    fn looking_counts_nothing() {
        let (budgets, gates) = (Budgets::default(), gates(&[Bound::PerJob(1)]));
        for _ in 0..3 {
            assert_eq!(budgets.look(1, &[&gates], Judgement::Within), Judgement::Within);
        }
        assert!(fits(&budgets, 1, &[&gates], 0));
        assert!(matches!(budgets.look(1, &[&gates], Judgement::Within), Judgement::Beyond { .. }));
    }

    #[test]
    fn a_minute_slides() {
        let (budgets, gates) = (Budgets::default(), gates(&[Bound::PerMinute(3)]));
        assert!(fits(&budgets, 1, &[&gates], 0));
        assert!(fits(&budgets, 1, &[&gates, &gates], 30));
        assert!(!fits(&budgets, 1, &[&gates], 59), "three within the minute");
        assert!(fits(&budgets, 2, &[&gates], 59), "another job");
        assert!(fits(&budgets, 1, &[&gates], 60), "the first is a minute ago");
        assert!(!fits(&budgets, 1, &[&gates], 89));
        assert!(fits(&budgets, 1, &[&gates, &gates], 90), "what was refused did not count");
        assert!(fits(&budgets, 1, &[&gates, &gates, &gates], 1000));
        assert!(!fits(&budgets, 1, &[&gates], 1001));
    }

    #[test]
    fn a_job_has_one_budget_which_ends_with_it() {
        let (budgets, gates) = (Budgets::default(), gates(&[Bound::PerJob(2), Bound::PerMinute(9)]));
        assert!(fits(&budgets, 1, &[&gates], 0) && fits(&budgets, 1, &[&gates], 500));
        assert!(!fits(&budgets, 1, &[&gates], 5000));
        assert_eq!(
            budgets.spend_at(1, &[&gates], Judgement::Within, true, 5000),
            Judgement::Within,
            "people agreed"
        );
        budgets.forget(1);
        assert!(!fits(&budgets, 1, &[&gates, &gates, &gates], 5000), "a text of three");
        assert!(fits(&budgets, 1, &[&gates], 5000));
    }

    #[test]
    fn requests_of_a_job_are_counted_by_the_minute() {
        let budgets = Budgets::default();
        let limits = [Bounded { most: 2, rule: "few".into() }, Bounded { most: 100, rule: "many".into() }];
        assert!(budgets.request_at(1, &limits, 0).is_ok());
        assert!(budgets.request_at(1, &limits, 30).is_ok());
        assert_eq!(&*budgets.request_at(1, &limits, 59).unwrap_err().rule, "few");
        assert!(budgets.request_at(2, &limits, 59).is_ok());
        assert!(budgets.request_at(1, &limits, 61).is_ok());
        assert!(budgets.request_at(1, &limits, 62).is_err());
        assert!(budgets.request_at(1, &[], 62).is_ok());
        budgets.forget(1);
        assert!(budgets.request_at(1, &limits, 62).is_ok());
    }
}
