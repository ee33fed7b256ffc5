//! A checked rule, and what of a statement it speaks for.

use std::{sync::Arc, time::Duration};

use crate::{
    action::Class,
    gate::Gate,
    http::matcher::HttpMatcher,
    kinds,
    kubernetes::matcher::KubernetesMatcher,
    pattern::{ColumnPattern, Glob, NamePattern},
    raw::RuleEffect,
    ssh::matcher::SshMatcher,
    verdict::{ApprovalTerms, Recording, UnixTime},
};

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) id: Arc<str>,
    pub(crate) effect: RuleEffect,
    pub(crate) connect: bool,
    pub(crate) replication: bool,
    pub(crate) statements: Option<Matcher>,
    pub(crate) ssh: Option<SshMatcher>,
    pub(crate) http: Option<HttpMatcher>,
    pub(crate) kubernetes: Option<KubernetesMatcher>,
    pub(crate) limits: RuleLimits,
    pub(crate) record: Recording,
    pub(crate) expires: Option<UnixTime>,
    pub(crate) approval: ApprovalTerms,
    pub(crate) reason: Option<String>,
}

/// The limits that a rule sets.
#[derive(Debug, Default)]
pub(crate) struct RuleLimits {
    pub(crate) rows: Option<u64>,
    pub(crate) bytes: Option<u64>,
    pub(crate) time: Option<Duration>,
    pub(crate) lock_wait: Option<Duration>,
    pub(crate) before: Vec<Gate>,
}

impl RuleLimits {
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_none()
            && self.bytes.is_none()
            && self.time.is_none()
            && self.lock_wait.is_none()
            && self.before.is_empty()
    }
}

impl Rule {
    /// One that no policy has to write, and that names nothing yet.
    pub(crate) fn builtin(id: &str, effect: RuleEffect) -> Self {
        Self {
            id: Arc::from(id),
            effect,
            connect: false,
            replication: false,
            statements: None,
            ssh: None,
            http: None,
            kubernetes: None,
            limits: RuleLimits::default(),
            record: Recording::default(),
            expires: None,
            approval: ApprovalTerms {
                quorum: 1,
                approvers: Vec::new(),
                expires_after: Duration::from_secs(600),
            },
            reason: None,
        }
    }

    pub(crate) fn is_expired(&self, now: UnixTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// It is about connecting, for which there is no word of its own in HTTP: whoever may ask anything may connect.
    pub(crate) fn connects(&self) -> bool {
        let requests = self.http.is_some() || self.kubernetes.is_some();
        self.connect || (requests && self.effect != RuleEffect::Deny)
    }

    /// It grants every statement, read or not.
    pub(crate) fn lets_everything(&self) -> bool {
        self.effect == RuleEffect::Allow && self.statements.as_ref().is_some_and(|matcher| matcher.everything)
    }
}

/// The commands and objects that a rule names.
#[derive(Debug, Default)]
pub(crate) struct Matcher {
    pub(crate) classes: Vec<Class>,
    pub(crate) kinds: Vec<String>,
    pub(crate) relations: Vec<NamePattern>,
    pub(crate) columns: Vec<ColumnPattern>,
    pub(crate) functions: Vec<NamePattern>,
    pub(crate) settings: Vec<Glob>,
    pub(crate) opaque: bool,
    pub(crate) catalog: bool,
    pub(crate) masked_predicates: bool,
    /// Whatever it is, read or not.
    pub(crate) everything: bool,
}

/// One command of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Command<'a> {
    /// `None`: no command, but something else inside raises the statement to this class: `nextval()`,
    /// FOR UPDATE.
    pub(crate) kind: Option<&'a str>,
    pub(crate) class: Class,
}

impl Command<'_> {
    pub(crate) fn name(&self) -> &str {
        self.kind.unwrap_or("something inside")
    }

    /// Whether this command changes, defines or otherwise uses up what it names.
    pub(crate) fn acts(&self) -> bool {
        !matches!(self.class, Class::Transaction | Class::Session | Class::Read)
    }

    /// Whether a relation that is only read is still what this command is about: copying it to a program is,
    /// selecting from it to fill another table is not.
    pub(crate) fn is_about_what_it_reads(&self) -> bool {
        !matches!(self.class, Class::Write | Class::Ddl)
    }
}

impl Matcher {
    /// As a grant: the rule names this command.
    pub(crate) fn grants_command(&self, command: Command<'_>) -> bool {
        self.classes.contains(&command.class)
            || command.kind.is_some_and(|kind| self.kinds.iter().any(|named| named == kind))
    }

    /// As a grant: the rule names some reading command.
    pub(crate) fn grants_reads(&self) -> bool {
        let reads = |kind: &String| kinds::class_of(kind) == Some(Class::Read);
        self.classes.contains(&Class::Read) || self.kinds.iter().any(reads)
    }

    /// As a restriction: the rule could mean this command. A rule that names none means all.
    pub(crate) fn may_mean_command(&self, command: Command<'_>) -> bool {
        self.names_no_command() || self.grants_command(command)
    }

    /// As a restriction: the rule could mean reading.
    pub(crate) fn may_mean_reads(&self) -> bool {
        self.names_no_command() || self.grants_reads()
    }

    pub(crate) fn names_no_object(&self) -> bool {
        self.relations.is_empty()
            && self.columns.is_empty()
            && self.functions.is_empty()
            && self.settings.is_empty()
    }

    pub(crate) fn names_no_command(&self) -> bool {
        self.classes.is_empty() && self.kinds.is_empty()
    }
}
