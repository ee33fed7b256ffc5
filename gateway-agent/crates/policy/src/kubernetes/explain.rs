//! Decisions on API servers in words.

use super::{
    Kubernetes, KubernetesObligations, ShownSecrets,
    evaluate::{grants, tells_what_there_is, touch},
    matcher::needs,
};
use crate::{pattern::Glob, raw::RuleEffect, rule::Rule};

/// What is asked for, as rules see it.
pub(crate) fn sees(action: &Kubernetes) -> Vec<String> {
    let mut lines: Vec<_> = needs(action).iter().map(ToString::to_string).collect();
    if action.dry_run {
        lines.extend(action.risks.iter().map(|risk| format!("{risk}, which is not stored")));
    }
    if tells_what_there_is(action) {
        lines.push("granted to whoever has a rule: it tells what there is".to_owned());
    }
    lines
}

/// What a rule has to do with it: whether it had a part in the answer, and why.
pub(crate) fn consider(rule: &Rule, action: &Kubernetes) -> (bool, String) {
    if rule.kubernetes.is_none() {
        return (false, "is not about Kubernetes".into());
    }
    match (rule.effect, touch(rule, action)) {
        (RuleEffect::Deny, Some(what)) => return (true, format!("is about {what}")),
        (RuleEffect::Approve, None) if action.dry_run => {}
        (RuleEffect::Deny | RuleEffect::Approve, None) => {
            return (false, "is not about any part of it".into());
        }
        _ => {}
    }
    let needs = needs(action);
    let granted: Vec<_> = needs.iter().filter(|need| grants(rule, **need)).map(ToString::to_string).collect();
    match (rule.effect, granted.is_empty()) {
        (RuleEffect::Approve, true) => (true, "is about this, and grants nothing of it".into()),
        (_, true) => (false, "grants nothing that it needs".into()),
        (_, false) => (true, format!("grants {}", granted.join(", "))),
    }
}

/// What an allow is conditional on.
pub(crate) fn describe(obligations: &KubernetesObligations, lines: &mut Vec<String>) {
    lines.push(match &obligations.shown {
        ShownSecrets::None => "the contents of Secrets are hidden".to_owned(),
        ShownSecrets::Named(names) => {
            let names: Vec<&str> = names.iter().map(Glob::as_str).collect();
            format!("the contents of Secrets are hidden, but for those called {}", names.join(", "))
        }
        ShownSecrets::All => "the contents of Secrets are shown".to_owned(),
    });
}
