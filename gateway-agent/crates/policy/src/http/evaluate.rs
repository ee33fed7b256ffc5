//! How a question about an HTTP host is answered; the order is that of [`crate::evaluate`].

use std::{fmt, sync::Arc};

use super::{
    Http, HttpLimits, HttpObligations, HttpRequest,
    matcher::{Bounds, HttpMatcher, grants, touches},
};
use crate::{
    builtin,
    evaluate::{Outcome, decided, denied_by, deny, live},
    mask_set::MaskSet,
    model::ResourceKind,
    policy::{Policy, Question, Scope},
    raw::RuleEffect,
    rule::Rule,
    ssh::Bounded,
    verdict::Obligations,
};

const NEXT: &str = "leave it out, or ask for a rule that allows it; `policy explain` shows every rule";

pub(crate) fn asked<'a>(
    policy: &Policy,
    question: &Question<'a>,
    scope: &'a Scope,
    http: &'a Http,
    missing: &mut Vec<String>,
) -> Outcome<'a> {
    if question.resource.kind() != ResourceKind::Https {
        let reason = format!("resource {} is of kind {}", question.resource.name, question.resource.kind());
        return deny(builtin::DEFAULT_DENY, reason, "connect to it by its own protocol");
    }
    let rules = |effect: RuleEffect| live(scope, question.now, effect);
    let denying: Vec<_> = rules(RuleEffect::Deny).filter(|rule| touches(rule, http)).collect();
    if !denying.is_empty() {
        return denied_by(&denying, http.to_string(), "leave it out, or ask for the policy to be changed");
    }
    let asking: Vec<_> = rules(RuleEffect::Approve).filter(|rule| touches(rule, http)).collect();
    let candidates = rules(RuleEffect::Allow).chain(asking.iter().copied());
    let granting: Vec<&Rule> = candidates.filter(|rule| grants(rule, http)).collect();
    if granting.is_empty() {
        missing.push(http.to_string());
        return ungranted(question, scope, http);
    }
    if let Some(outcome) = unseen(&scope.masks, http) {
        return outcome;
    }
    decided(policy, question, asking, granting)
}

fn ungranted<'a>(question: &Question<'_>, scope: &Scope, http: &Http) -> Outcome<'a> {
    let (subject, resource) = (&question.subject.name, &question.resource.name);
    let granting = scope.rules.iter().filter(|rule| rule.effect != RuleEffect::Deny);
    let mut matchers = granting.filter_map(|rule| rule.http.as_ref());
    if let Http::Request(request) = http
        && let Some(way) = request.path.ambiguous.first()
        && matchers.any(|matcher: &HttpMatcher| matcher.stumbles(request))
    {
        let ways: Vec<_> = request.path.ambiguous.iter().map(|way| way.name()).collect();
        return deny(
            builtin::AMBIGUOUS_PATH,
            format!("servers read the path {} differently ({})", request.path.raw, ways.join(", ")),
            format!("write it plainly, or ask for a rule with `ambiguous: [{}]`", way.name()),
        );
    }
    deny(builtin::DEFAULT_DENY, format!("no rule allows {subject} on {resource}: {http}"), NEXT)
}

/// Whether masked values would get out by a way on which nothing is masked.
fn unseen<'a>(masks: &MaskSet, http: &Http) -> Option<Outcome<'a>> {
    let what = match http {
        Http::Request(request) => match &request.upgrade {
            Some(to) if masks.hides_in(request) => format!("what is said over {to}"),
            _ => return None,
        },
        Http::PassThrough(_) if masks.hides() => "TLS that is let through".to_owned(),
        Http::PassThrough(_) => return None,
    };
    let reason = format!("values are masked there, and {what} is not seen");
    Some(deny(builtin::LAUNDERING, reason, "ask by ordinary requests"))
}

/// What an allow of it is conditional on.
pub(crate) fn obligations(granting: &[&Rule], masks: &MaskSet, http: &Http) -> Obligations {
    let bounds = granting.iter().filter_map(|rule| Some((&rule.http.as_ref()?.limits, &rule.id)));
    let (mut json, mut detectors) = (Vec::new(), None);
    if let Http::Request(request) = http {
        let about = || masks.http.iter().filter(|mask| mask.is_about(&request.path));
        json = about().flat_map(|mask| mask.json.iter().cloned()).collect();
        let more = about().flat_map(|mask| mask.detectors.iter().copied()).collect();
        detectors = masks.detectors_and(more);
    }
    Obligations {
        detectors,
        masks: Arc::clone(&masks.ids),
        record: granting.iter().map(|rule| rule.record).max().unwrap_or_default(),
        http: Some(Arc::new(HttpObligations { json: json.into(), limits: limits(bounds) })),
        ..Obligations::default()
    }
}

fn limits<'a>(bounds: impl Iterator<Item = (&'a Bounds, &'a Arc<str>)> + Clone) -> HttpLimits {
    HttpLimits {
        request_bytes: Bounded::strictest(bounds.clone(), |bounds| bounds.request_bytes),
        response_bytes: Bounded::strictest(bounds.clone(), |bounds| bounds.response_bytes),
        duration: Bounded::strictest(bounds.clone(), |bounds| bounds.duration),
        per_minute: Bounded::each(bounds, |bounds| bounds.per_minute).collect(),
    }
}

impl MaskSet {
    /// Something may be hidden in the response to this request.
    fn hides_in(&self, request: &HttpRequest) -> bool {
        self.detectors.is_some() || self.http.iter().any(|mask| mask.is_about(&request.path))
    }

    fn hides(&self) -> bool {
        self.detectors.is_some() || !self.http.is_empty()
    }
}

impl fmt::Display for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longest path that is shown, in characters.
        const SHOWN: usize = 200;
        match self {
            Self::Request(request) => {
                let line = HttpRequest { raw_query: None, ..request.clone() }.line();
                match line.char_indices().nth(SHOWN) {
                    Some((at, _)) => write!(f, "{} …", line.get(..at).unwrap_or_default()),
                    None => f.write_str(&line),
                }
            }
            Self::PassThrough(asked) => {
                write!(f, "TLS to {}:{} without being looked into", asked.host, asked.port)
            }
        }
    }
}
