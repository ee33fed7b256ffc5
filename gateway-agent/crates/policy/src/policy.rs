//! A loaded policy and the questions that can be put to it.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use serde_json::Value;

use crate::{
    action::Action,
    check,
    diagnostic::Diagnostic,
    dns::Names,
    evaluate::Evaluation,
    explain::Explanation,
    mask_set::MaskSet,
    model::{Credential, Resource, Subject, SubjectMatch},
    own::OwnPermit,
    rule::Rule,
    verdict::{ColumnMasks, Denial, UnixTime, Verdict},
};

/// A policy file.
#[derive(Debug, Clone)]
pub struct Source {
    /// How diagnostics call it, usually its path.
    pub name: String,
    pub text: String,
}

/// A checked policy.
pub struct Policy {
    pub(crate) version: Arc<str>,
    pub(crate) subjects: Vec<SubjectMatch>,
    pub(crate) resources: Vec<Arc<Resource>>,
    /// By subject, then resource. Subjects and resources of another policy are looked up by name here, so one
    /// that this policy does not have gets nothing.
    pub(crate) scopes: HashMap<Arc<str>, HashMap<Arc<str>, Scope>>,
    pub(crate) names: Names,
}

/// What counts for one subject on one resource.
#[derive(Debug)]
pub(crate) struct Scope {
    /// In the order of the policy.
    pub(crate) rules: Vec<Arc<Rule>>,
    pub(crate) masks: Arc<MaskSet>,
}

/// May this subject do this to this resource now?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub subject: &'a Subject,
    pub resource: &'a Resource,
    pub action: &'a Action,
    pub now: UnixTime,
    /// What people have agreed to for exactly this action.
    pub grant: Option<&'a Grant>,
}

/// People agreed to one action. Made by whoever asked them, for one use on the action that they were shown;
/// it turns an approve verdict of these rules, under this version of the policy, into an allow. It turns
/// nothing else into anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    rules: Vec<Arc<str>>,
    policy_version: Arc<str>,
}

impl Grant {
    /// `rules` and `policy_version` as they were when people were asked.
    pub fn approved(rules: Vec<Arc<str>>, policy_version: Arc<str>) -> Self {
        Self { rules, policy_version }
    }

    pub(crate) fn satisfies(&self, version: &str, rule: &Rule) -> bool {
        *self.policy_version == *version && self.rules.contains(&rule.id)
    }
}

impl Policy {
    /// Reads and checks the sources as one policy. Every complaint is reported at once, unless a file cannot
    /// be read at all.
    pub fn load(sources: &[Source]) -> Result<Self, Vec<Diagnostic>> {
        check::load(sources)
    }

    /// Tells policies apart: a hash of the sources' text.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The subject that verified claims make. When several match, the first in the order of the policy.
    pub fn subject(&self, issuer: &str, claims: &Value) -> Result<Arc<Subject>, Denial> {
        self.subjects
            .iter()
            .find(|matcher| matcher.matches(issuer, claims))
            .map(|matcher| matcher.subject.clone())
            .ok_or_else(|| Denial {
                reason: format!("no subject of the policy matches this token of {issuer}"),
                hint: "compare the token's claims with `subjects` in the policy".to_owned(),
            })
    }

    pub fn subject_named(&self, name: &str) -> Option<Arc<Subject>> {
        self.subjects
            .iter()
            .find(|matcher| &*matcher.subject.name == name)
            .map(|matcher| matcher.subject.clone())
    }

    /// All resources, in the order of the policy.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    pub fn resource_named(&self, name: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| &*resource.name == name)
    }

    /// Resources at a destination; several only when they differ in their databases.
    pub fn resources_at(&self, address: IpAddr, port: u16) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter().filter(move |resource| resource.is_at(address, port))
    }

    /// The permit for what the gateway has to clean up on a resource by itself, without any job: the roles that it made
    /// there. `None` where it makes none.
    pub fn housekeeping(&self, resource: &str) -> Option<OwnPermit> {
        let resource = self.resource_named(resource)?;
        let made = matches!(resource.postgres()?.credential, Credential::Ephemeral(_));
        made.then(|| OwnPermit::new(&resource.name))
    }

    /// The answer. Pure and total; the only place that makes permits.
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        Evaluation::of(self, question).verdict()
    }

    /// Whether every statement of this subject there is allowed, also one that cannot be read. Nothing then
    /// restricts what it reads, and sessions may change how their statements are read.
    pub fn lets_everything(&self, subject: &Subject, resource: &Resource) -> bool {
        let scope = self.scopes.get(&subject.name).and_then(|of| of.get(&resource.name));
        scope.is_some_and(|scope| scope.rules.iter().any(|rule| rule.lets_everything()))
    }

    /// The columns that are masked for this subject there; `None` when there are none.
    pub fn column_masks(&self, subject: &Subject, resource: &Resource) -> Option<Arc<ColumnMasks>> {
        self.scopes.get(&subject.name)?.get(&resource.name)?.masks.columns.clone()
    }

    /// Whether this subject may open replication connections there.
    pub fn lets_replicate(&self, subject: &Subject, resource: &Resource) -> bool {
        let scope = self.scopes.get(&subject.name).and_then(|of| of.get(&resource.name));
        scope.is_some_and(|scope| {
            scope.rules.iter().any(|rule| rule.replication && rule.lets_everything() && rule.connect)
        })
    }

    /// The same answer, with what every rule had to do with it.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        Explanation::of(self, question)
    }

    pub(crate) fn scope(&self, question: &Question<'_>) -> Option<&Scope> {
        self.scopes.get(&question.subject.name)?.get(&question.resource.name)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({})", self.version)
    }
}
