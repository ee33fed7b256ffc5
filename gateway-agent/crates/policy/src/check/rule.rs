//! Rules and masks.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use mask::{Detector, Partial, Transform};

use super::{Names, Placed, Scoped, check_name, check_unique, limits};
use crate::{
    action::Class,
    catalog,
    diagnostic::{Findings, Place, did_you_mean},
    http::{self, matcher::HttpMask},
    kinds, kubernetes,
    mask_set::MaskSet,
    model::ResourceKind,
    pattern::{BadPattern, ColumnPattern, Glob, NamePattern},
    raw::{RawApproval, RawLimits, RawMask, RawPolicy, RawRule, RawStatements, RuleEffect},
    rule::{Matcher, Rule},
    settings,
    ssh::{self, matcher::FileMask, pattern::PathPattern},
    verdict::{ApprovalTerms, UnixTime},
};

const APPROVAL_WAIT: Duration = Duration::from_secs(600);

pub(super) fn rules(
    raws: &[(usize, RawPolicy)],
    names: &Names,
    findings: &mut Findings,
) -> Vec<Placed<Arc<Rule>>> {
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for (source, raw) in raws {
        for (index, raw) in raw.rules.iter().enumerate() {
            let place = Place::new(*source, "rules", index);
            check_name("rule", &raw.id, &place.at("id"), findings);
            check_unique("rule id", &raw.id, &place.at("id"), &mut seen, findings);
            rules.push(rule(raw, names, &place, findings));
        }
    }
    rules
}

fn rule(raw: &RawRule, names: &Names, place: &Place, findings: &mut Findings) -> Placed<Arc<Rule>> {
    let grants = raw.effect != RuleEffect::Deny;
    if grants && raw.subjects.is_none() {
        findings.add(
            place.clone(),
            format!("rule `{}` grants something but names no subjects", raw.id),
            "add `subjects: [...]`",
        );
    }
    if grants && raw.resources.is_none() {
        findings.add(
            place.clone(),
            format!("rule `{}` grants something but names no resources", raw.id),
            "add `resources: [...]`",
        );
    }
    let parts = [raw.statements.is_some(), raw.ssh.is_some(), raw.http.is_some(), raw.kubernetes.is_some()];
    if !raw.connect && !parts.contains(&true) {
        findings.add(
            place.clone(),
            format!("rule `{}` is empty: it names neither connect nor statements nor ssh nor http nor kubernetes", raw.id),
            "add `connect: true`, `statements: {classes: [...]}`, `ssh: {commands: [...]}`, `http: {methods: [...], paths: [...]}` or `kubernetes: {requests: [...]}`",
        );
    }
    if grants && raw.reason.is_some() {
        findings.add(
            place.at("reason"),
            format!("rule `{}` does not deny, so nobody would see its reason", raw.id),
            "drop it, or write a comment",
        );
    }
    if !grants && raw.record.is_some() {
        findings.add(
            place.at("record"),
            format!("rule `{}` denies, so there is nothing to record", raw.id),
            "drop it: denials are always in the audit log",
        );
    }
    if raw.replication && !(raw.connect && raw.statements.as_ref().is_some_and(|of| of.everything)) {
        findings.add(
            place.at("replication"),
            format!(
                "rule `{}` lets the whole server be read by replication, and not everything else",
                raw.id
            ),
            "write `connect: true` and `statements: {everything: true}` beside it, or drop it",
        );
    }
    if raw.expires.is_some() && raw.statements.as_ref().is_some_and(|statements| statements.everything) {
        findings.add(
            place.at("expires"),
            format!("rule `{}` lets everything through and ends by itself", raw.id),
            "end it by changing the policy: sessions that it let change their settings have to end with it",
        );
    }
    let statements = raw.statements.as_ref().map(|raw_statements| {
        matcher(&raw.id, raw.effect, raw_statements, &place.at("statements"), findings)
    });
    let ssh = raw
        .ssh
        .as_ref()
        .map(|part| ssh::check::matcher(&raw.id, raw.effect, raw.connect, part, &place.at("ssh"), findings));
    let http = raw
        .http
        .as_ref()
        .map(|part| http::check::matcher(&raw.id, raw.effect, part, &place.at("http"), findings));
    let of_kubernetes = raw
        .kubernetes
        .as_ref()
        .map(|part| kubernetes::check::matcher(&raw.id, raw.effect, part, &place.at("kubernetes"), findings));
    let terms = approval(raw, &place.at("approval"), findings);
    let item = Rule {
        id: Arc::from(raw.id.as_str()),
        effect: raw.effect,
        connect: raw.connect,
        replication: raw.replication,
        statements,
        ssh,
        http,
        kubernetes: of_kubernetes,
        limits: limits::limits(raw, &terms, &place.at("limits"), findings),
        record: raw.record.unwrap_or_default(),
        expires: raw.expires.as_ref().and_then(|text| time(text, &place.at("expires"), findings)),
        approval: terms,
        reason: raw.reason.clone(),
    };
    let owner = format!("rule `{}`", raw.id);
    let resources = resources(&owner, raw.resources.as_deref(), names, place, findings);
    of_kind(raw, &resources, names, place, findings);
    Placed {
        subjects: subjects(&owner, raw.subjects.as_deref(), names, place, findings),
        resources,
        place: place.clone(),
        item: Arc::new(item),
    }
}

/// What a rule says has to mean something to one of its resources.
fn of_kind(raw: &RawRule, resources: &Scoped, names: &Names, place: &Place, findings: &mut Findings) {
    let Scoped::Only(only) = resources else { return };
    let any = |kind| only.iter().any(|name| names.kinds.get(name) == Some(&kind));
    let parts = [
        (
            "statements",
            raw.statements.is_some(),
            ResourceKind::Postgres,
            "name what is asked of them under `ssh` or `http`",
        ),
        (
            "limits",
            raw.limits != RawLimits::default(),
            ResourceKind::Postgres,
            "limits of SSH go into `ssh: {limits: ...}`",
        ),
        (
            "ssh",
            raw.ssh.is_some(),
            ResourceKind::Ssh,
            "name what is asked of them under `statements` or `http`",
        ),
        (
            "http",
            raw.http.is_some(),
            ResourceKind::Https,
            "name what is asked of them under `statements`, `ssh` or `kubernetes`",
        ),
        (
            "kubernetes",
            raw.kubernetes.is_some(),
            ResourceKind::Kubernetes,
            "name what is asked of them under `statements`, `ssh` or `http`",
        ),
    ];
    for (part, there, kind, hint) in parts {
        if there && !only.is_empty() && !any(kind) {
            findings.add(
                place.at(part),
                format!("rule `{}` has `{part}`, and none of its resources is of kind {kind}", raw.id),
                hint,
            );
        }
    }
}

fn matcher(
    id: &str,
    effect: RuleEffect,
    raw: &RawStatements,
    place: &Place,
    findings: &mut Findings,
) -> Matcher {
    for (index, kind) in raw.kinds.iter().enumerate() {
        if kinds::class_of(kind).is_none() {
            findings.add(
                place.at("kinds").at(index),
                format!("unknown statement kind `{kind}`"),
                did_you_mean(kind, kinds::all().map(|(_, kind)| kind)),
            );
        }
    }
    for (index, setting) in raw.settings.iter().enumerate() {
        if settings::FIXED.iter().any(|fixed| Glob::new(setting).is_ok_and(|glob| glob.matches(fixed))) {
            findings.add(
                place.at("settings").at(index),
                format!("`{setting}` would let go of a setting that statements are read by"),
                format!("leave these alone: {}", settings::FIXED.join(", ")),
            );
        }
    }
    if raw.everything {
        return everything(id, effect, raw, place, findings);
    }
    let matcher = Matcher {
        classes: raw.classes.clone(),
        kinds: raw.kinds.clone(),
        relations: patterns(&raw.relations, &place.at("relations"), findings, |text| {
            NamePattern::new(text, "public.orders")
        }),
        columns: patterns(&raw.columns, &place.at("columns"), findings, ColumnPattern::new),
        functions: patterns(&raw.functions, &place.at("functions"), findings, |text| {
            NamePattern::new(text, "billing.total_of")
        }),
        settings: patterns(&raw.settings, &place.at("settings"), findings, Glob::new),
        opaque: raw.opaque,
        catalog: raw.catalog.unwrap_or(raw.classes.contains(&Class::Read)),
        masked_predicates: raw.masked_predicates,
        everything: false,
    };
    let empty = matcher.names_no_command() && matcher.names_no_object() && !matcher.opaque;
    if empty {
        findings.add(
            place.clone(),
            format!("rule `{id}` is empty: it names no statements"),
            "name classes or kinds, for example `classes: [read]`",
        );
    } else if effect != RuleEffect::Deny && matcher.names_no_command() {
        findings.add(
            place.clone(),
            format!("rule `{id}` grants objects but names no commands on them"),
            "add `classes: [read]`, or `kinds: [...]`",
        );
    }
    if effect == RuleEffect::Deny && (raw.masked_predicates || raw.catalog.is_some()) {
        findings.add(
            place.clone(),
            format!("rule `{id}` denies, so it cannot grant masked_predicates or catalog"),
            "drop them here",
        );
    }
    matcher
}

/// A rule that grants whatever is asked: it can neither name nor leave out anything.
fn everything(
    id: &str,
    effect: RuleEffect,
    raw: &RawStatements,
    place: &Place,
    findings: &mut Findings,
) -> Matcher {
    if effect != RuleEffect::Allow {
        findings.add(
            place.at("everything"),
            format!("rule `{id}` does not allow, and `everything` is for allowing"),
            "name classes: all of them are [transaction, session, read, write, utility, ddl, privilege, code]",
        );
    }
    let alone = RawStatements { everything: true, ..RawStatements::default() };
    if *raw != alone {
        findings.add(
            place.clone(),
            format!("rule `{id}` lets everything through, yet names statements"),
            "write `everything: true` alone, or leave it out",
        );
    }
    Matcher { everything: true, ..Matcher::default() }
}

fn patterns<T>(
    texts: &[String],
    place: &Place,
    findings: &mut Findings,
    parse: impl Fn(&str) -> Result<T, BadPattern>,
) -> Vec<T> {
    let mut patterns = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(bad) => findings.add(place.at(index), bad.message, bad.hint),
        }
    }
    patterns
}

pub(super) fn time(text: &str, place: &Place, findings: &mut Findings) -> Option<UnixTime> {
    let parsed = humantime::parse_rfc3339(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    if parsed.is_none() {
        findings.add(
            place.clone(),
            format!("`{text}` is not a time"),
            "write it in UTC like 2027-01-31T00:00:00Z",
        );
    }
    parsed.map(|since| UnixTime(since.as_secs()))
}

fn approval(rule: &RawRule, place: &Place, findings: &mut Findings) -> ApprovalTerms {
    let none = RawApproval { quorum: None, approvers: Vec::new(), expires_after: None };
    let raw = rule.approval.as_ref().unwrap_or(&none);
    if rule.approval.is_some() && rule.effect != RuleEffect::Approve && !limits::asks(&rule.limits) {
        findings.add(
            place.clone(),
            format!("rule `{}` is no approve rule, and no limit of it asks", rule.id),
            "write `effect: approve`, or a limit with `on_exceed: ask`, or drop `approval`",
        );
    }
    let quorum = raw.quorum.unwrap_or(1);
    if quorum == 0 {
        findings.add(place.at("quorum"), "a quorum of 0 asks nobody", "write 1 or more, or `effect: allow`");
    }
    for (index, approver) in raw.approvers.iter().enumerate() {
        let name = approver.strip_prefix('@').unwrap_or(approver);
        check_name("user or @group", name, &place.at("approvers").at(index), findings);
    }
    let people: BTreeSet<_> = raw.approvers.iter().collect();
    let only_users = !people.is_empty() && people.iter().all(|name| !name.starts_with('@'));
    if only_users && usize::try_from(quorum).is_ok_and(|quorum| quorum > people.len()) {
        findings.add(
            place.at("quorum"),
            format!("a quorum of {quorum} cannot be reached by {} approvers", people.len()),
            "name more approvers, or a @group",
        );
    }
    let expires_after = match raw.expires_after.as_deref().map(humantime::parse_duration) {
        None => APPROVAL_WAIT,
        Some(Ok(wait)) if !wait.is_zero() => wait,
        Some(_) => {
            findings.add(place.at("expires_after"), "not a length of time", "for example 10m or 1h 30m");
            APPROVAL_WAIT
        }
    };
    ApprovalTerms { quorum, approvers: raw.approvers.clone(), expires_after }
}

fn subjects(
    owner: &str,
    list: Option<&[String]>,
    names: &Names,
    place: &Place,
    findings: &mut Findings,
) -> Scoped {
    let find = |name: &str| match names.subjects.get(name) {
        Some(known) => Some(vec![known.clone()]),
        None => names.groups.get(name).map(|members| members.iter().cloned().collect()),
    };
    let known = names.subjects.iter().map(|name| &**name).chain(names.groups.keys().map(String::as_str));
    scoped((owner, "subject", "subjects or groups"), list, find, known, &place.at("subjects"), findings)
}

/// The same as a set of names; `None`: everyone.
pub(super) fn subject_set(
    owner: &str,
    list: Option<&[String]>,
    names: &Names,
    place: &Place,
    findings: &mut Findings,
) -> Option<BTreeSet<Arc<str>>> {
    match subjects(owner, list, names, place, findings) {
        Scoped::All => None,
        Scoped::Only(only) => Some(only),
    }
}

fn resources(
    owner: &str,
    list: Option<&[String]>,
    names: &Names,
    place: &Place,
    findings: &mut Findings,
) -> Scoped {
    let find = |name: &str| names.resources.get(name).map(|known| vec![known.clone()]);
    let known = names.resources.iter().map(|name| &**name);
    scoped((owner, "resource", "resources"), list, find, known, &place.at("resources"), findings)
}

/// A list of names, each of which has to be known. `about` = whose list it is, what one name is of, what to write.
fn scoped<'a>(
    about: (&str, &str, &str),
    list: Option<&[String]>,
    find: impl Fn(&str) -> Option<Vec<Arc<str>>>,
    known: impl Iterator<Item = &'a str> + Clone,
    place: &Place,
    findings: &mut Findings,
) -> Scoped {
    let (owner, kind, write) = about;
    let Some(list) = list else { return Scoped::All };
    if list.is_empty() {
        let nobody = if kind == "subject" { "nobody" } else { "no resource" };
        findings.add(place.clone(), format!("{owner} is for {nobody}"), format!("name {write}"));
    }
    let mut only = BTreeSet::new();
    for (index, name) in list.iter().enumerate() {
        match find(name) {
            Some(found) => only.extend(found),
            None => findings.add(
                place.at(index),
                format!("{owner} names {kind} `{name}`, which is not defined"),
                did_you_mean(name, known.clone()),
            ),
        }
    }
    Scoped::Only(only)
}

/// A checked mask.
pub(super) struct Mask {
    id: Arc<str>,
    columns: Vec<ColumnPattern>,
    detectors: Vec<(Detector, Option<Partial>)>,
    transform: Transform,
    files: Vec<PathPattern>,
    http: Option<HttpMask>,
}

impl Mask {
    /// It is about contents of files alone.
    fn is_of_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// It is about files or responses, and not about results of statements.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.is_of_files() || self.http.is_some()
    }

    pub(super) fn owner(&self) -> String {
        format!("mask `{}`", self.id)
    }
}

pub(super) fn masks(
    raws: &[(usize, RawPolicy)],
    names: &Names,
    findings: &mut Findings,
) -> Vec<Placed<Mask>> {
    let mut seen = BTreeSet::new();
    let mut masks = Vec::new();
    for (source, raw) in raws {
        for (index, raw) in raw.masks.iter().enumerate() {
            let place = Place::new(*source, "masks", index);
            check_name("mask", &raw.id, &place.at("id"), findings);
            check_unique("mask id", &raw.id, &place.at("id"), &mut seen, findings);
            let owner = format!("mask `{}`", raw.id);
            let resources = resources(&owner, raw.resources.as_deref(), names, &place, findings);
            let kinds = [
                ("files", raw.files.is_empty(), ResourceKind::Ssh),
                ("columns", raw.columns.is_empty(), ResourceKind::Postgres),
                ("json", raw.json.is_empty(), ResourceKind::Https),
                ("paths", raw.paths.is_empty(), ResourceKind::Https),
            ];
            for (part, _, kind) in kinds.into_iter().filter(|(_, empty, _)| !empty) {
                let Scoped::Only(only) = &resources else { continue };
                if !only.is_empty() && !only.iter().any(|name| names.kinds.get(name) == Some(&kind)) {
                    findings.add(
                        place.at(part),
                        format!(
                            "mask `{}` has `{part}`, and none of its resources is of kind {kind}",
                            raw.id
                        ),
                        format!("name a resource of kind {kind}, or drop it"),
                    );
                }
            }
            masks.push(Placed {
                subjects: subjects(&owner, raw.subjects.as_deref(), names, &place, findings),
                resources,
                item: mask(raw, &place, findings),
                place,
            });
        }
    }
    masks
}

fn mask(raw: &RawMask, place: &Place, findings: &mut Findings) -> Mask {
    if raw.columns.is_empty() && raw.detectors.is_empty() && raw.json.is_empty() {
        findings.add(
            place.clone(),
            format!("mask `{}` hides nothing", raw.id),
            "name columns, json or detectors",
        );
    }
    let keep = match raw.transform {
        Transform::Partial(partial) => Some(partial),
        _ => None,
    };
    if !raw.detectors.is_empty() && !matches!(raw.transform, Transform::Redact | Transform::Partial(_)) {
        findings.add(
            place.at("transform"),
            format!("mask `{}`: what a detector finds inside a value is redacted or shown in part", raw.id),
            "write `redact` or {partial: …} here, and columns in a mask of their own",
        );
    }
    let mut detectors = Vec::new();
    for (index, name) in raw.detectors.iter().enumerate() {
        match Detector::named(name) {
            Some(detector) => detectors.push((detector, keep)),
            None => findings.add(
                place.at("detectors").at(index),
                format!("unknown detector `{name}`"),
                did_you_mean(name, Detector::ALL.iter().map(|detector| detector.name())),
            ),
        }
    }
    if !raw.files.is_empty() && (!raw.columns.is_empty() || raw.detectors.is_empty()) {
        findings.add(
            place.at("files"),
            format!("mask `{}`: files are searched by detectors, and have no columns", raw.id),
            "name detectors beside files, and columns in a mask of their own",
        );
    }
    let columns = patterns(&raw.columns, &place.at("columns"), findings, ColumnPattern::new);
    let files = patterns(&raw.files, &place.at("files"), findings, PathPattern::new);
    let http = http::check::mask(raw, detectors.clone(), place, findings);
    Mask { id: raw.id.as_str().into(), columns, detectors, transform: raw.transform, files, http }
}

/// All the masks that apply to one subject on one resource, together.
pub(super) fn mask_set<'a>(masks: impl Iterator<Item = &'a Mask>) -> Arc<MaskSet> {
    let (mut columns, mut detectors, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut files, mut http) = (Vec::new(), Vec::new());
    for mask in masks {
        ids.push(Arc::clone(&mask.id));
        if let Some(of) = &mask.http {
            http.push(of.clone());
            continue;
        }
        if mask.is_of_files() {
            let (paths, detectors) = (mask.files.clone(), mask.detectors.clone());
            files.push(FileMask { paths, detectors, id: Arc::clone(&mask.id) });
            continue;
        }
        columns.extend(mask.columns.iter().map(|pattern| (pattern.clone(), mask.transform)));
        detectors.extend(mask.detectors.iter().copied());
    }
    if !columns.is_empty() {
        columns.extend(catalog::repeating().map(|pattern| (pattern, Transform::Redact)));
    }
    Arc::new(MaskSet::new(columns, detectors, ids, files, http))
}
