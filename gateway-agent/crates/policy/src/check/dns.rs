//! Rules about names.

use std::{collections::BTreeSet, sync::Arc};

use super::{Names, check_name, check_unique, resource::is_host_name, rule};
use crate::{
    diagnostic::{Findings, Place},
    dns::{self, NameLimits, NameMatch, NameRule, RecordKind},
    raw::{RawNameLimits, RawNameRule, RawPolicy, RuleEffect},
};

/// `taken`: ids of the other rules, which share the audit log with these.
pub(super) fn names(
    raws: &[(usize, RawPolicy)],
    names: &Names,
    taken: impl Iterator<Item = Arc<str>>,
    findings: &mut Findings,
) -> dns::Names {
    let mut seen: BTreeSet<String> = taken.map(|id| id.to_string()).collect();
    let mut checked = dns::Names::default();
    let mut limited = false;
    for (source, raw) in raws {
        let Some(dns) = &raw.dns else { continue };
        if let Some(raw) = &dns.limits {
            let limits =
                limits(raw, &Place { source: *source, path: vec!["dns".into(), "limits".into()] }, findings);
            // Of several files the strictest counts, for each bound by itself.
            checked.limits = if limited { strictest(checked.limits, limits) } else { limits };
            limited = true;
        }
        for (index, raw) in dns.rules.iter().enumerate() {
            let place = Place { source: *source, path: vec!["dns".into(), "rules".into(), index.into()] };
            check_name("rule", &raw.id, &place.at("id"), findings);
            check_unique("rule id", &raw.id, &place.at("id"), &mut seen, findings);
            checked.rules.push(name_rule(raw, names, &place, findings));
        }
    }
    checked
}

fn name_rule(raw: &RawNameRule, names: &Names, place: &Place, findings: &mut Findings) -> NameRule {
    let grants = raw.effect != RuleEffect::Deny;
    if raw.effect == RuleEffect::Approve {
        findings.add(
            place.at("effect"),
            format!("rule `{}`: nobody is asked about names", raw.id),
            "write allow or deny",
        );
    }
    if grants && raw.subjects.is_none() {
        findings.add(
            place.clone(),
            format!("rule `{}` grants something but names no subjects", raw.id),
            "add `subjects: [...]`",
        );
    }
    if grants && raw.reason.is_some() {
        findings.add(
            place.at("reason"),
            format!("rule `{}` does not deny, so nobody would see its reason", raw.id),
            "drop it, or write a comment",
        );
    }
    if raw.names.is_empty() {
        findings.add(
            place.clone(),
            format!("rule `{}` names no names", raw.id),
            "add `names: [...]`; `\"*\"` if every name is really meant",
        );
    }
    let mut matches = Vec::new();
    for (index, text) in raw.names.iter().enumerate() {
        match name_match(text) {
            Some(name) => matches.push(name),
            None => findings.add(
                place.at("names").at(index),
                format!("`{text}` is not a name"),
                "write packages.example, \"*.packages.example\" for all names below it, or \"*\"",
            ),
        }
    }
    if raw.types.as_ref().is_some_and(Vec::is_empty) {
        findings.add(place.at("types"), "an empty list of types", "leave it out, or name one");
    }
    let owner = format!("rule `{}`", raw.id);
    NameRule {
        id: Arc::from(raw.id.as_str()),
        effect: raw.effect,
        subjects: rule::subject_set(&owner, raw.subjects.as_deref(), names, place, findings),
        names: matches,
        kinds: match (&raw.types, grants) {
            (Some(types), _) => types.clone(),
            (None, true) => RecordKind::ADDRESSES.to_vec(),
            (None, false) => Vec::new(),
        },
        expires: raw.expires.as_ref().and_then(|text| rule::time(text, &place.at("expires"), findings)),
        reason: raw.reason.clone(),
    }
}

fn name_match(text: &str) -> Option<NameMatch> {
    if text == "*" {
        return Some(NameMatch::Any);
    }
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    match lower.strip_prefix("*.") {
        Some(below) => is_host_name(below).then(|| NameMatch::Below(format!(".{below}"))),
        None => is_host_name(&lower).then_some(NameMatch::Exact(lower)),
    }
}

fn limits(raw: &RawNameLimits, place: &Place, findings: &mut Findings) -> NameLimits {
    let usual = NameLimits::default();
    let mut bound = |field: &str, given: Option<u32>, usual: u32, most: u32| match given {
        None => usual,
        Some(value) if (1..=most).contains(&value) => value,
        Some(value) => {
            findings.add(
                place.at(field),
                format!("{field}: {value} is not in 1..={most}"),
                format!("{usual} is usual"),
            );
            usual
        }
    };
    let name_bytes = bound("name_bytes", raw.name_bytes, usual.name_bytes.into(), 253);
    let labels = bound("labels", raw.labels, usual.labels.into(), 127);
    let per_second = bound("per_second", raw.per_second, usual.per_second, 10_000);
    let names_per_minute = bound("names_per_minute", raw.names_per_minute, usual.names_per_minute, 10_000);
    let response_bytes = bound("response_bytes", raw.response_bytes, usual.response_bytes.into(), 65_535);
    NameLimits {
        // Bounded above, each by what its type holds.
        name_bytes: u16::try_from(name_bytes).unwrap_or(usual.name_bytes),
        labels: u8::try_from(labels).unwrap_or(usual.labels),
        per_second,
        names_per_minute,
        response_bytes: u16::try_from(response_bytes).unwrap_or(usual.response_bytes),
    }
}

fn strictest(one: NameLimits, other: NameLimits) -> NameLimits {
    NameLimits {
        name_bytes: one.name_bytes.min(other.name_bytes),
        labels: one.labels.min(other.labels),
        per_second: one.per_second.min(other.per_second),
        names_per_minute: one.names_per_minute.min(other.names_per_minute),
        response_bytes: one.response_bytes.min(other.response_bytes),
    }
}
