//! Subjects and groups.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{check_name, check_unique};
use crate::{
    diagnostic::{Findings, Place, did_you_mean},
    model::{Subject, SubjectMatch},
    pattern::Glob,
    raw::{RawGroup, RawPolicy, RawSubject},
};

pub(super) fn subjects(raws: &[(usize, RawPolicy)], findings: &mut Findings) -> Vec<SubjectMatch> {
    let mut seen = BTreeSet::new();
    let mut subjects = Vec::new();
    for (source, raw) in raws {
        for (index, raw) in raw.subjects.iter().enumerate() {
            let place = Place::new(*source, "subjects", index);
            check_name("subject", &raw.name, &place.at("name"), findings);
            if check_unique("subject", &raw.name, &place.at("name"), &mut seen, findings) {
                subjects.push(subject(raw, &place, findings));
            }
        }
    }
    subjects
}

fn subject(raw: &RawSubject, place: &Place, findings: &mut Findings) -> SubjectMatch {
    if raw.issuer.is_empty() {
        findings.add(
            place.at("issuer"),
            "an empty issuer",
            "write the `iss` of the tokens, for example https://token.example",
        );
    }
    let at_claims = place.at("claims");
    if raw.claims.0.is_empty() {
        findings.add(
            at_claims.clone(),
            format!("subject `{}` names no claims, so every token of the issuer would be it", raw.name),
            "name the claims that tell it apart; `sub: \"*\"` if every token is really meant",
        );
    }
    let mut claims = Vec::new();
    for (name, values) in &raw.claims.0 {
        let at = at_claims.at(name.as_str());
        if values.0.is_empty() {
            findings.add(
                at.clone(),
                format!("claim `{name}` has no values"),
                "no token would match: give one value",
            );
        }
        let mut globs = Vec::new();
        for value in &values.0 {
            match Glob::new(value) {
                Ok(glob) => globs.push(glob),
                Err(bad) => findings.add(at.clone(), format!("claim `{name}`: {}", bad.message), bad.hint),
            }
        }
        claims.push((name.clone(), globs));
    }
    SubjectMatch {
        subject: Arc::new(Subject { name: Arc::from(raw.name.as_str()) }),
        issuer: raw.issuer.clone(),
        claims,
    }
}

/// Every group with all the subjects in it, directly or through other groups.
pub(super) fn groups(
    raws: &[(usize, RawPolicy)],
    subjects: &[SubjectMatch],
    findings: &mut Findings,
) -> HashMap<String, BTreeSet<Arc<str>>> {
    let subjects: BTreeMap<&str, &Arc<str>> =
        subjects.iter().map(|matcher| (&*matcher.subject.name, &matcher.subject.name)).collect();
    let mut seen: BTreeSet<String> = subjects.keys().map(|name| (*name).to_owned()).collect();
    let mut groups: BTreeMap<&str, (&RawGroup, Place)> = BTreeMap::new();
    for (source, raw) in raws {
        for (index, raw) in raw.groups.iter().enumerate() {
            let place = Place::new(*source, "groups", index);
            check_name("group", &raw.name, &place.at("name"), findings);
            if check_unique("subject or group", &raw.name, &place.at("name"), &mut seen, findings) {
                groups.insert(&raw.name, (raw, place));
            }
        }
    }
    for (group, place) in groups.values() {
        if group.members.is_empty() {
            findings.add(
                place.at("members"),
                format!("group `{}` is empty", group.name),
                "name its subjects, or drop it",
            );
        }
        for (index, member) in group.members.iter().enumerate() {
            if !subjects.contains_key(member.as_str()) && !groups.contains_key(member.as_str()) {
                findings.add(
                    place.at("members").at(index),
                    format!("group `{}` has member `{member}`, which is not defined", group.name),
                    did_you_mean(member, subjects.keys().chain(groups.keys()).copied()),
                );
            }
        }
    }
    report_cycles(&groups, findings);
    groups
        .keys()
        .map(|name| {
            let reached = reach(&groups, name);
            let members = reached.keys().filter_map(|name| subjects.get(name).copied().cloned()).collect();
            ((*name).to_owned(), members)
        })
        .collect()
}

type Groups<'a> = BTreeMap<&'a str, (&'a RawGroup, Place)>;

/// Everything reached from a group, each with the group it was reached from.
fn reach<'a>(groups: &Groups<'a>, from: &'a str) -> BTreeMap<&'a str, &'a str> {
    let mut reached = BTreeMap::new();
    let mut queue = VecDeque::from([from]);
    while let Some(name) = queue.pop_front() {
        let Some((group, _)) = groups.get(name) else { continue };
        for member in &group.members {
            if !reached.contains_key(member.as_str()) {
                reached.insert(member.as_str(), name);
                queue.push_back(member);
            }
        }
    }
    reached
}

fn report_cycles(groups: &Groups<'_>, findings: &mut Findings) {
    let mut reported = BTreeSet::new();
    for (name, (_, place)) in groups {
        let reached = reach(groups, name);
        if !reached.contains_key(name) || reported.contains(name) {
            continue;
        }
        let mut cycle = vec![*name];
        let mut at = *name;
        // Back along the shortest way from the group to itself.
        while let Some(from) = reached.get(at) {
            cycle.push(*from);
            at = *from;
            if at == *name || cycle.len() > groups.len() {
                break;
            }
        }
        cycle.reverse();
        reported.extend(cycle.iter().copied());
        findings.add(
            place.at("members"),
            format!("groups form a cycle: {}", cycle.join(" -> ")),
            "take one of them out of the other",
        );
    }
}
