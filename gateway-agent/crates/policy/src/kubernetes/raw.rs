//! The language's part for Kubernetes, as it is written.

use std::collections::BTreeMap;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::Risk;
use crate::{
    raw::RawSecret,
    ssh::raw::{RawCommand, RawFiles},
};

/// Requests to API servers.
///
/// An allow rule grants a request that is all of what one entry of `requests` names. A deny or approve rule applies to every
/// request that could reach what an entry names: a list across namespaces reaches each of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawKubernetes {
    /// Requests for objects.
    pub(crate) requests: Vec<RawRequests>,
    /// Paths that are no objects: `/metrics`, `/healthz/*`. What there is (`/api`, `/apis`, `/openapi`, `/version`) may be asked
    /// for by whoever has a rule.
    pub(crate) paths: Vec<String>,
    /// What objects may ask for beyond themselves. Whatever no rule names here waits for a human. Deny and approve rules: requests
    /// that ask for one of these.
    pub(crate) risks: Vec<Risk>,
    /// What may be run in pods, for pods/exec and pods/attach.
    pub(crate) exec: RawExec,
    /// Secrets whose contents are shown: those of these names, with wildcards, wherever they stand in an answer; or all, by `true`.
    pub(crate) show_secrets: RawShown,
    /// Bounds. Of several rules that grant a request the strictest count.
    pub(crate) limits: RawKubernetesLimits,
}

/// Verbs on objects.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawRequests {
    /// get, list, watch, create, update, patch, delete, deletecollection; `*` for all of them.
    pub(crate) verbs: Vec<String>,
    /// API groups, with wildcards; `""` is the core group. Default: the core group; for deny rules any.
    pub(crate) groups: Option<Vec<String>>,
    /// `pods`, `deployments/scale`, `pods/*`; `*` is every resource without a subresource.
    pub(crate) resources: Vec<String>,
    /// With wildcards. Requests without a namespace need `cluster: true`.
    pub(crate) namespaces: Option<Vec<String>>,
    /// Objects that are in no namespace, and lists across all of them.
    pub(crate) cluster: bool,
    /// With wildcards. Default: any; lists have no name unless a field selector says one.
    pub(crate) names: Option<Vec<String>>,
    /// Requirements that the label selector of a list, watch or deletecollection has to have: `app=web`.
    pub(crate) selectors: Vec<String>,
    /// Only what the server does not store.
    pub(crate) dry_run: bool,
    /// Containers that may be entered, with wildcards. Default: any.
    pub(crate) containers: Option<Vec<String>>,
    /// Ports that may be forwarded. Default: any.
    pub(crate) ports: Option<Vec<u16>>,
}

/// Which Secrets are shown.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum RawShown {
    All(bool),
    Named(Vec<String>),
}

impl Default for RawShown {
    fn default() -> Self {
        Self::All(false)
    }
}

/// Written out, because the error of an untagged enum does not say what was wrong.
impl<'de> Deserialize<'de> for RawShown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RawShown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names of Secrets, or `true` for all of them")
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawShown, E> {
                Ok(RawShown::All(value))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, seq: A) -> Result<RawShown, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(RawShown::Named)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// What may be run in pods.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawExec {
    /// Programs, as in `ssh: {commands: …}`. What `sh -c` is given is read as a shell reads it.
    pub(crate) commands: Vec<RawCommand>,
    /// Files that redirections open.
    pub(crate) files: Vec<RawFiles>,
    /// Variables that are set in front of a command.
    pub(crate) env: Vec<String>,
    /// Commands that cannot be seen through.
    pub(crate) opaque: bool,
    /// Interactive shells, attaching, and every command.
    pub(crate) shell: bool,
}

/// Bounds on requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawKubernetesLimits {
    /// From being allowed until the end of the answer or stream, as `1h`.
    pub(crate) duration: Option<String>,
    /// Bytes of an answer, as they come from the server.
    pub(crate) response_bytes: Option<u64>,
    /// Requests that the rule grants, in any 60 seconds.
    pub(crate) per_minute: Option<u32>,
}

/// A token that the cluster makes for the gateway, valid for minutes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawServiceAccount {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `10m` by default, which is the least that servers give.
    pub(crate) valid_for: Option<String>,
    /// Default: the server's own.
    #[serde(default)]
    pub(crate) audiences: Vec<String>,
}

/// A program that prints a credential (client.authentication.k8s.io).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawExecPlugin {
    /// Absolute path of the program, and its arguments.
    pub(crate) command: Vec<String>,
    /// Variables besides PATH and HOME.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, RawSecret>,
}

/// Whom the gateway acts as, so that the cluster's own audit names the job.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawImpersonate {
    /// A user's name; `{subject}` is the job's subject.
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}
