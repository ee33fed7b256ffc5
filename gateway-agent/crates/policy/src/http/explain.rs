//! Decisions on HTTP hosts in words.

use super::{
    Http, HttpObligations,
    matcher::{grants, touches},
};
use crate::{raw::RuleEffect, rule::Rule};

/// What is asked for, as rules see it.
pub(crate) fn sees(http: &Http) -> Vec<String> {
    let mut lines = vec![http.to_string()];
    if let Http::Request(request) = http {
        lines.push(format!("path /{}", request.path.segments.join("/")));
        lines.extend(request.path.readings.iter().map(|other| format!("or /{}", other.join("/"))));
        lines.extend(request.path.ambiguous.iter().map(|way| format!("ambiguous: {}", way.name())));
        lines.extend(request.query.iter().map(|(name, value)| format!("parameter {name}={value}")));
    }
    lines
}

/// What a rule has to do with it: whether it had a part in the answer, and why.
pub(crate) fn consider(rule: &Rule, http: &Http) -> (bool, String) {
    let (touched, granted) = (touches(rule, http), grants(rule, http));
    match (rule.effect, touched, granted) {
        (_, _, _) if rule.http.is_none() => (false, "names no requests".into()),
        (RuleEffect::Deny, true, _) => (true, "could be what it names".into()),
        (RuleEffect::Deny | RuleEffect::Approve, false, _) => (false, "is not what it names".into()),
        (RuleEffect::Approve, true, false) => {
            (true, "could be what it names, and is not granted by it".into())
        }
        (_, _, true) => (true, "grants it".into()),
        (RuleEffect::Allow, _, false) => (false, "is not all of what it names".into()),
    }
}

/// What an allow is conditional on.
pub(crate) fn describe(obligations: &HttpObligations, lines: &mut Vec<String>) {
    lines.extend(obligations.json.iter().map(|(path, to)| format!("{path} is masked: {to:?}")));
    let limits = &obligations.limits;
    let mut limit = |what: &str, most: Option<String>, rule: Option<&str>| {
        if let (Some(most), Some(rule)) = (most, rule) {
            lines.push(format!("{what} at most {most} (rule {rule})"));
        }
    };
    let bytes = limits.request_bytes.as_ref();
    limit("request bytes", bytes.map(|of| of.most.to_string()), bytes.map(|of| &*of.rule));
    let bytes = limits.response_bytes.as_ref();
    limit("response bytes", bytes.map(|of| of.most.to_string()), bytes.map(|of| &*of.rule));
    let duration = limits.duration.as_ref();
    limit("duration", duration.map(|of| format!("{:?}", of.most)), duration.map(|of| &*of.rule));
    for rate in &limits.per_minute {
        limit("requests a minute", Some(rate.most.to_string()), Some(&*rate.rule));
    }
}
