//! Which names a subject may resolve.
//!
//! A name and a type are one question. Deny beats allow; the names of resources that a subject may connect to are
//! granted without a rule. A question that is allowed opens nothing: what a job may reach is decided by address.

use std::{collections::BTreeSet, fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    builtin,
    model::Host,
    policy::Policy,
    raw::RuleEffect,
    verdict::{Denial, UnixTime},
};

/// Record types that a rule may grant. Whatever is not here, ANY and zone transfers among it, is never granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordKind {
    A,
    Aaaa,
    Caa,
    Cname,
    Https,
    Mx,
    Naptr,
    Ns,
    Ptr,
    Soa,
    Srv,
    Svcb,
    Tlsa,
    Txt,
}

impl RecordKind {
    /// What a rule grants that names no types, and what comes with a resource.
    pub const ADDRESSES: [Self; 2] = [Self::A, Self::Aaaa];

    /// As in zone files; `None`: no rule can grant it.
    pub fn from_name(name: &str) -> Option<Self> {
        serde_json::from_value(serde_json::Value::from(name)).ok()
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Caa => "CAA",
            Self::Cname => "CNAME",
            Self::Https => "HTTPS",
            Self::Mx => "MX",
            Self::Naptr => "NAPTR",
            Self::Ns => "NS",
            Self::Ptr => "PTR",
            Self::Soa => "SOA",
            Self::Srv => "SRV",
            Self::Svcb => "SVCB",
            Self::Tlsa => "TLSA",
            Self::Txt => "TXT",
        }
    }
}

/// Bounds on the questions of each job: what it could say to the world by asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameLimits {
    /// Longest name, in bytes of its text form without the last dot.
    pub name_bytes: u16,
    /// Most labels of a name.
    pub labels: u8,
    /// Questions a second, with a burst of as many.
    pub per_second: u32,
    /// Different names that a job may ask the world for in any minute.
    pub names_per_minute: u32,
    /// Longest answer.
    pub response_bytes: u16,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self { name_bytes: 128, labels: 10, per_second: 50, names_per_minute: 200, response_bytes: 4096 }
    }
}

/// A name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NameMatch {
    Any,
    /// Lower case, without the last dot.
    Exact(String),
    /// With its leading dot.
    Below(String),
}

impl NameMatch {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == name,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
        }
    }
}

/// A checked rule about names.
#[derive(Debug)]
pub(crate) struct NameRule {
    pub(crate) id: Arc<str>,
    pub(crate) effect: RuleEffect,
    /// `None`: everyone.
    pub(crate) subjects: Option<BTreeSet<Arc<str>>>,
    pub(crate) names: Vec<NameMatch>,
    /// Empty: all, which only deny rules have.
    pub(crate) kinds: Vec<RecordKind>,
    pub(crate) expires: Option<UnixTime>,
    pub(crate) reason: Option<String>,
}

impl NameRule {
    fn speaks_for(&self, question: &NameQuestion<'_>) -> bool {
        self.expires.is_none_or(|expires| expires > question.now)
            && self.subjects.as_ref().is_none_or(|subjects| subjects.contains(question.subject))
            && self.names.iter().any(|name| name.matches(question.name))
    }
}

/// All about names, checked.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) limits: NameLimits,
    pub(crate) rules: Vec<NameRule>,
}

/// May this subject ask for this?
#[derive(Debug, Clone, Copy)]
pub struct NameQuestion<'a> {
    pub subject: &'a str,
    /// Lower case, without the last dot.
    pub name: &'a str,
    /// `None`: a type that no rule can grant.
    pub kind: Option<RecordKind>,
    pub now: UnixTime,
}

/// The answer, with the ids of the rules that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameVerdict {
    pub rules: Vec<Arc<str>>,
    pub effect: NameEffect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameEffect {
    /// The name of a resource: the gateway knows its addresses.
    Resource,
    /// Ask the world.
    Allow,
    Deny(Denial),
}

impl fmt::Display for NameEffect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Deny(_)) { "deny" } else { "allow" })
    }
}

impl Policy {
    /// Bounds that count for every job.
    pub fn name_limits(&self) -> &NameLimits {
        &self.names.limits
    }

    /// The answer. Pure and total.
    pub fn resolve(&self, question: &NameQuestion<'_>) -> NameVerdict {
        let speaking: Vec<&NameRule> =
            self.names.rules.iter().filter(|rule| rule.speaks_for(question)).collect();
        let has = |rule: &NameRule| question.kind.is_some_and(|kind| rule.kinds.contains(&kind));
        let denies =
            |rule: &&NameRule| rule.effect == RuleEffect::Deny && (rule.kinds.is_empty() || has(rule));
        let denying: Vec<&NameRule> = speaking.iter().copied().filter(|rule| denies(rule)).collect();
        if let Some(first) = denying.first() {
            let reason = first.reason.clone().unwrap_or_else(|| format!("{} is denied", question.name));
            return deny(
                denying.iter().map(|rule| rule.id.clone()).collect(),
                reason,
                "ask who writes the policy",
            );
        }
        let granting = self.granting_resource(question);
        let address = question.kind.is_some_and(|kind| RecordKind::ADDRESSES.contains(&kind));
        if let Some(rules) = &granting
            && address
        {
            return NameVerdict { rules: rules.clone(), effect: NameEffect::Resource };
        }
        let allowing: Vec<Arc<str>> =
            speaking.iter().filter(|rule| has(rule)).map(|rule| rule.id.clone()).collect();
        if !allowing.is_empty() {
            return NameVerdict { rules: allowing, effect: NameEffect::Allow };
        }
        if granting.is_some() || !speaking.is_empty() {
            let kind = question.kind.map_or("this type", RecordKind::name);
            return deny(
                vec![builtin::DNS_TYPE.into()],
                format!("{} may be asked for, but not for {kind}", question.name),
                "add the type to `types` of the rule, if it is one that rules can grant",
            );
        }
        deny(
            vec![builtin::DEFAULT_DENY.into()],
            format!("no rule lets {} resolve {}", question.subject, question.name),
            "add the name to `dns.rules`, or to the hosts of a resource that the subject may connect to",
        )
    }

    /// The rules by which the subject may connect to a resource of this name; `None`: there is none.
    fn granting_resource(&self, question: &NameQuestion<'_>) -> Option<Vec<Arc<str>>> {
        let scopes = self.scopes.get(question.subject)?;
        let named = self.resources.iter().filter(|resource| {
            resource.hosts.iter().any(|host| matches!(host, Host::Name(name) if name == question.name))
        });
        let mut rules = Vec::new();
        for scope in named.filter_map(|resource| scopes.get(&resource.name)) {
            let connecting =
                || scope.rules.iter().filter(|rule| rule.connects() && !rule.is_expired(question.now));
            if connecting().any(|rule| rule.effect == RuleEffect::Deny) {
                continue;
            }
            rules.extend(connecting().map(|rule| rule.id.clone()));
        }
        if rules.is_empty() { None } else { Some(rules) }
    }
}

fn deny(rules: Vec<Arc<str>>, reason: String, hint: &str) -> NameVerdict {
    NameVerdict { rules, effect: NameEffect::Deny(Denial { reason, hint: hint.to_owned() }) }
}
