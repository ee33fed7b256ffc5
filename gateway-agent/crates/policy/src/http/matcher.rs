//! The requests that a rule names.

use std::time::Duration;

use mask::{Detector, JsonPath, Partial, Transform};

use super::{Ambiguity, Http, HttpPath, HttpRequest, model::ServerName, pattern::PathTemplate};
use crate::{pattern::Glob, rule::Rule};

#[derive(Debug, Default)]
pub(crate) struct HttpMatcher {
    /// `None`: every name of the resource.
    pub(crate) hosts: Option<Vec<ServerName>>,
    pub(crate) methods: Methods,
    pub(crate) paths: Vec<PathTemplate>,
    pub(crate) query: Vec<(String, Vec<Glob>)>,
    pub(crate) upgrade: Vec<String>,
    pub(crate) ambiguous: Vec<Ambiguity>,
    pub(crate) pass_through: bool,
    pub(crate) limits: Bounds,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Methods {
    #[default]
    Any,
    Only(Vec<String>),
}

/// The limits that a rule sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) request_bytes: Option<u64>,
    pub(crate) response_bytes: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) per_minute: Option<u32>,
}

impl HttpMatcher {
    /// As a grant: it is all of what the rule names.
    pub(crate) fn grants(&self, http: &Http) -> bool {
        match http {
            Http::Request(request) => {
                !self.pass_through
                    && self.has_host(&request.host)
                    && self.has_method(&request.method)
                    && self.paths.iter().any(|template| template.matches(&request.path.segments))
                    && request.path.ambiguous.iter().all(|way| self.ambiguous.contains(way))
                    && self.query.iter().all(|(name, values)| granted(request, name, values))
                    && request.upgrade.as_ref().is_none_or(|to| self.upgrade.contains(to))
            }
            Http::PassThrough(asked) => self.pass_through && self.has_host(&asked.host),
        }
    }

    /// As a restriction: it could be what the rule names. What is not seen could be anything.
    pub(crate) fn may_mean(&self, http: &Http) -> bool {
        match http {
            Http::Request(request) => {
                !self.pass_through
                    && self.has_host(&request.host)
                    && self.has_method(&request.method)
                    && (self.paths.is_empty() || may_lead(&self.paths, &request.path))
                    && self.query.iter().all(|(name, values)| could_have(request, name, values))
                    && (self.upgrade.is_empty()
                        || request.upgrade.as_ref().is_some_and(|to| self.upgrade.contains(to)))
            }
            Http::PassThrough(asked) => self.has_host(&asked.host),
        }
    }

    fn has_host(&self, host: &str) -> bool {
        self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|known| known.matches(host)))
    }

    fn has_method(&self, method: &str) -> bool {
        match &self.methods {
            Methods::Any => true,
            Methods::Only(methods) => methods.iter().any(|known| known == method),
        }
    }

    /// Why it is not granted, when that is nothing but the way in which the path is written.
    pub(crate) fn stumbles(&self, request: &HttpRequest) -> bool {
        self.has_host(&request.host)
            && self.has_method(&request.method)
            && !self.pass_through
            && self.paths.iter().any(|template| template.matches(&request.path.segments))
            && !request.path.ambiguous.is_empty()
    }
}

/// Some reading of the path is what a template says.
pub(crate) fn may_lead(templates: &[PathTemplate], path: &HttpPath) -> bool {
    let mut readings = std::iter::once(&path.segments).chain(&path.readings);
    readings.any(|segments| templates.iter().any(|template| template.matches(segments)))
}

/// Servers differ in which of two they take: a parameter that counts is there once.
fn granted(request: &HttpRequest, name: &str, values: &[Glob]) -> bool {
    let mut found = request.query.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (Some((key, value)), None) => key == name && values.iter().any(|glob| glob.matches(value)),
        _ => false,
    }
}

fn could_have(request: &HttpRequest, name: &str, values: &[Glob]) -> bool {
    let mut found = request.query.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.any(|(_, value)| values.iter().any(|glob| glob.matches(value)))
}

/// What of the request a rule is about, as a restriction.
pub(crate) fn touches(rule: &Rule, http: &Http) -> bool {
    rule.http.as_ref().is_some_and(|matcher| matcher.may_mean(http))
}

/// Whether a rule grants it.
pub(crate) fn grants(rule: &Rule, http: &Http) -> bool {
    rule.http.as_ref().is_some_and(|matcher| matcher.grants(http))
}

/// A mask of responses.
#[derive(Debug, Clone)]
pub(crate) struct HttpMask {
    /// Empty: every path.
    pub(crate) paths: Vec<PathTemplate>,
    pub(crate) json: Vec<(JsonPath, Transform)>,
    pub(crate) detectors: Vec<(Detector, Option<Partial>)>,
}

impl HttpMask {
    pub(crate) fn is_about(&self, path: &HttpPath) -> bool {
        self.paths.is_empty() || may_lead(&self.paths, path)
    }
}
