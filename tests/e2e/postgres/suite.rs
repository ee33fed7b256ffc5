//! Suites of statements in a text file: what is expected of each, then one statement a line.

use tests::{
    World,
    wire::{Exchange, Mode, Outcome},
};

/// One entry of a suite.
#[derive(Debug)]
pub(crate) struct Case {
    /// The first word of its heading, and what follows it in quotes or parentheses.
    pub(crate) expected: String,
    pub(crate) argument: String,
    pub(crate) name: String,
    /// Words in brackets at the end of the heading.
    pub(crate) tags: Vec<String>,
    pub(crate) steps: Vec<String>,
}

/// What came of a case, sent in one way.
pub(crate) struct Ran<'a> {
    pub(crate) case: &'a Case,
    pub(crate) mode: Mode,
    pub(crate) outcome: Outcome,
}

const MODES: [(Mode, &str); 4] = [
    (Mode::Simple, "simple"),
    (Mode::Extended, "extended"),
    (Mode::Binary, "binary"),
    (Mode::Pipeline, "pipeline"),
];

/// Reads a suite.
#[track_caller]
pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            let (heading, tags) = match heading.strip_suffix(']').and_then(|rest| rest.rsplit_once(" [")) {
                Some((heading, tags)) => (heading, tags.split(' ').map(str::to_owned).collect()),
                None => (heading, Vec::new()),
            };
            let (expected, rest) = heading.split_once(' ').expect("a name after what is expected");
            let (argument, name) = match rest.chars().next() {
                Some('"') => rest[1..].split_once("\" ").expect("a closing quote"),
                Some('(') => rest[1..].split_once(") ").expect("a closing parenthesis"),
                _ => ("", rest),
            };
            assert!(!cases.iter().any(|case| case.name == name), "two entries are called {name}");
            cases.push(Case {
                expected: expected.to_owned(),
                argument: argument.to_owned(),
                name: name.to_owned(),
                tags,
                steps: Vec::new(),
            });
        } else if !line.is_empty() && !line.starts_with("# ") {
            cases.last_mut().expect("a heading first").steps.push(line.to_owned());
        }
    }
    cases
}

/// Runs the cases in one job, each in every way that it does not leave out, and returns what came of them in order.
#[track_caller]
pub(crate) fn run<'a>(world: &World, token: &str, cases: &[&'a Case], copy: &[u8]) -> Vec<Ran<'a>> {
    let mut plan = Vec::new();
    for (mode, tag) in MODES {
        for case in cases {
            let named: Vec<_> =
                case.tags.iter().filter(|tag| MODES.iter().any(|(_, mode)| mode == tag)).collect();
            // A FunctionCall is the same in every mode.
            let once = case.steps.iter().any(|step| step.starts_with("\\fn ")) && mode != Mode::Simple;
            if !once && (named.is_empty() || named.iter().any(|named| *named == tag)) {
                plan.push((*case, mode));
            }
        }
    }
    let exchanges: Vec<_> = plan
        .iter()
        .map(|(case, mode)| Exchange { mode: *mode, steps: case.steps.clone(), copy: copy.to_vec() })
        .collect();
    let job = world.job_as(token, &[world.program("wire-client")]).expect("a job");
    let out = job.stdin(serde_json::to_vec(&exchanges).expect("JSON")).run();
    let outcomes: Vec<Outcome> =
        out.stdout.lines().map(|line| serde_json::from_str(line).expect("an outcome")).collect();
    let stopped = plan.get(outcomes.len()).map(|(case, mode)| format!("{} ({mode:?})", case.name));
    assert_eq!(stopped, None, "the client stopped there: {}", out.stderr);
    let pairs = plan.into_iter().zip(outcomes);
    pairs.map(|((case, mode), outcome)| Ran { case, mode, outcome }).collect()
}

impl Ran<'_> {
    /// For messages.
    pub(crate) fn title(&self) -> String {
        format!("{} ({:?})", self.case.name, self.mode)
    }
}
