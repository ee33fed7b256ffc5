//! The answer with its reasons.

use std::fmt;

use serde::Serialize;

use crate::{
    action::Action,
    facts::{Facts, class_name},
    gate::Bound,
    http, kubernetes,
    policy::{Policy, Question},
    raw::RuleEffect,
    rule::Rule,
    ssh,
    verdict::{Effect, OutputMasks, UnixTime},
};

/// Why an action is answered as it is.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub subject: String,
    pub resource: String,
    pub policy_version: String,
    /// `allow`, `approve` or `deny`.
    pub effect: &'static str,
    /// The rules that decided.
    pub decided_by: Vec<String>,
    /// For a deny: what the person at the client reads.
    pub reason: Option<String>,
    pub hint: Option<String>,
    /// What the statement does, as rules see it.
    pub sees: Vec<String>,
    /// What no rule grants.
    pub ungranted: Vec<String>,
    /// What happens to the result.
    pub obligations: Vec<String>,
    /// Every rule of the policy for this subject and resource, in its order.
    pub rules: Vec<RuleNote>,
}

/// What one rule has to do with it.
#[derive(Debug, Clone, Serialize)]
pub struct RuleNote {
    pub id: String,
    pub effect: RuleEffect,
    /// Whether it had a part in the answer.
    pub matched: bool,
    pub why: String,
}

impl Explanation {
    pub(crate) fn of(policy: &Policy, question: &Question<'_>) -> Self {
        let evaluation = crate::evaluate::Evaluation::of(policy, question);
        let mut ungranted: Vec<String> = evaluation.uncovered.iter().map(ToString::to_string).collect();
        ungranted.extend(evaluation.missing.iter().cloned());
        let verdict = evaluation.verdict();
        let (effect, reason, hint, obligations) = match &verdict.effect {
            Effect::Allow(allow) => ("allow", None, None, describe(&allow.obligations)),
            Effect::Approve(terms) => {
                let ask = format!("{} of {} within {:?}", terms.quorum, terms.who(), terms.expires_after);
                ("approve", None, None, vec![ask])
            }
            Effect::Deny(denial) => {
                ("deny", Some(denial.reason.clone()), Some(denial.hint.clone()), Vec::new())
            }
        };
        let rules = policy.scope(question).map(|scope| scope.rules.as_slice()).unwrap_or_default();
        Self {
            subject: question.subject.name.to_string(),
            resource: question.resource.name.to_string(),
            policy_version: policy.version().to_string(),
            effect,
            decided_by: verdict.rules.iter().map(ToString::to_string).collect(),
            reason,
            hint,
            sees: sees(question),
            ungranted,
            obligations,
            rules: rules.iter().map(|rule| note(rule, question)).collect(),
        }
    }
}

fn describe(obligations: &crate::verdict::Obligations) -> Vec<String> {
    let mut lines = Vec::new();
    match &obligations.outputs {
        OutputMasks::None => {}
        OutputMasks::Columns(masks) => {
            for (at, mask) in masks.iter().enumerate() {
                if let Some(mask) = mask {
                    lines.push(format!("result column {} is masked: {:?}", at + 1, mask.transform(true)));
                }
            }
        }
        OutputMasks::Unknown => {
            lines.push("every result column is masked unless the server names it as unmasked".into())
        }
    }
    if let Some(detectors) = &obligations.detectors {
        lines.push(format!("values are searched for {}", detectors.names().collect::<Vec<_>>().join(", ")));
    }
    if let Some(rows) = obligations.limits.rows {
        lines.push(format!("at most {rows} rows"));
    }
    if let Some(bytes) = obligations.limits.bytes {
        lines.push(format!("at most {bytes} bytes"));
    }
    if let Some(gates) = &obligations.gates {
        for gate in &gates.before {
            let beyond = match &gate.ask {
                None => "deny".to_owned(),
                Some(terms) => format!("ask {} of {}", terms.quorum, terms.who()),
            };
            let bound = match gate.bound {
                Bound::Cost(most) => format!("an estimated cost of at most {most}"),
                Bound::RowsEstimated(most) => format!("at most {most} estimated rows"),
                Bound::PerMinute(most) => format!("at most {most} statements a minute"),
                Bound::PerJob(most) => format!("at most {most} statements a job"),
            };
            lines.push(format!("{bound}, else {beyond} (rule {})", gate.rule));
        }
        let timed = [("it runs", &gates.time), ("it waits for a lock", &gates.lock_wait)];
        for (what, timed) in timed.iter().filter_map(|(what, timed)| Some((what, timed.as_ref()?))) {
            lines.push(format!(
                "{what} for at most {:?}, else it is cancelled (rule {})",
                timed.most, timed.rule
            ));
        }
    }
    if let Some(of) = &obligations.ssh {
        ssh::explain::describe(of, &mut lines);
    }
    if let Some(of) = &obligations.http {
        http::explain::describe(of, &mut lines);
    }
    if let Some(of) = &obligations.kubernetes {
        kubernetes::explain::describe(of, &mut lines);
    }
    lines.push(format!("recorded: {:?}", obligations.record).to_lowercase());
    lines
}

fn sees(question: &Question<'_>) -> Vec<String> {
    match question.action {
        Action::Connect(connect) => vec![format!("connecting to database {}", connect.database)],
        Action::Ssh(ssh) => ssh::explain::sees(ssh),
        Action::Http(http) => http::explain::sees(http),
        Action::Kubernetes(action) => kubernetes::explain::sees(action),
        Action::Statement(statement) => {
            let facts = Facts::new(statement, question.resource.search_path());
            let mut lines: Vec<_> = facts
                .commands()
                .iter()
                .map(|command| format!("{} (class {})", command.name(), class_name(command.class)))
                .collect();
            lines.extend(facts.needs().iter().skip(lines.len()).map(ToString::to_string));
            lines
        }
    }
}

fn note(rule: &Rule, question: &Question<'_>) -> RuleNote {
    let (matched, why) = consider(rule, question);
    RuleNote { id: rule.id.to_string(), effect: rule.effect, matched, why }
}

fn consider(rule: &Rule, question: &Question<'_>) -> (bool, String) {
    if rule.is_expired(question.now) {
        let UnixTime(at) = rule.expires.unwrap_or(UnixTime(0));
        return (false, format!("expired {at} seconds after 1970"));
    }
    let statement = match question.action {
        Action::Connect(_) if rule.connect => return (true, "names connect".into()),
        Action::Connect(_) => return (false, "does not name connect".into()),
        Action::Statement(statement) => statement,
        Action::Ssh(ssh) => return ssh::explain::consider(rule, ssh),
        Action::Http(http) => return http::explain::consider(rule, http),
        Action::Kubernetes(action) => return kubernetes::explain::consider(rule, action),
    };
    let Some(matcher) = &rule.statements else {
        return (false, "names no statements".into());
    };
    if matcher.everything {
        return (true, "lets everything through".into());
    }
    let facts = Facts::new(statement, question.resource.search_path());
    let touched = facts.touched(matcher);
    match (rule.effect, touched) {
        (RuleEffect::Deny, Some(touch)) => return (true, format!("is about {touch}")),
        (RuleEffect::Deny | RuleEffect::Approve, None) => {
            return (false, "none of its commands touches any of its objects".into());
        }
        _ => {}
    }
    let granted: Vec<_> = facts.needs().into_iter().filter(|need| facts.granted(matcher, *need)).collect();
    match (rule.effect, granted.is_empty()) {
        (RuleEffect::Approve, true) => (true, "is about this, and grants nothing of it".into()),
        (_, true) => (false, "grants nothing that the statement needs".into()),
        (_, false) => {
            let granted: Vec<_> = granted.iter().map(ToString::to_string).collect();
            (true, format!("grants {}", granted.join(", ")))
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} on {}: {} by {}",
            self.subject,
            self.resource,
            self.effect,
            self.decided_by.join(", ")
        )?;
        if let Some(reason) = &self.reason {
            writeln!(f, "  {reason}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  hint: {hint}")?;
        }
        let sections =
            [("sees", &self.sees), ("granted by nothing", &self.ungranted), ("then", &self.obligations)];
        for (title, lines) in sections {
            if !lines.is_empty() {
                writeln!(f, "{title}:")?;
            }
            for line in lines {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(f, "rules of policy {}:", self.policy_version)?;
        for rule in &self.rules {
            let mark = if rule.matched { '+' } else { '-' };
            let effect = match rule.effect {
                RuleEffect::Allow => "allow",
                RuleEffect::Approve => "approve",
                RuleEffect::Deny => "deny",
            };
            writeln!(f, "  {mark} {} ({effect}): {}", rule.id, rule.why)?;
        }
        Ok(())
    }
}
