//! Subject, action and time to verdict.
//!
//! Pure and total: no clock, no file, no socket. The only maker of [`Permit`]: without one nothing reaches an
//! upstream.
//!
//! A [`Policy`] is loaded from YAML, checked as a whole, and asked with [`Policy::decide`]. Default deny; deny
//! beats approve beats allow; every verdict names the rules that made it. What a statement does comes in as a
//! [`Statement`]; whatever could not be told about it counts as the most dangerous thing it could be.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::as_conversions
    )
)]

mod action;
pub mod builtin;
mod catalog;
mod check;
mod diagnostic;
mod dns;
mod evaluate;
mod explain;
mod facts;
pub mod functions;
mod gate;
mod http;
pub mod kinds;
mod kubernetes;
mod mask_set;
mod model;
mod own;
mod pattern;
mod policy;
mod raw;
mod rule;
mod settings;
mod ssh;
pub mod testing;
mod verdict;

pub use action::{
    Access, Action, Class, Column, ColumnUse, Connect, Lineage, Named, Outputs, RelationUse, Statement,
};
pub use diagnostic::Diagnostic;
pub use dns::{NameEffect, NameLimits, NameQuestion, NameVerdict, RecordKind};
pub use explain::{Explanation, RuleNote};
pub use gate::{Bound, Estimate, Gate, Gates, Judgement, OnExceed, Planned, Timed};
pub use http::{
    Ambiguity, Http, HttpCase, HttpLimits, HttpObligations, HttpPath, HttpRequest, HttpUpstream, Inject,
    PassThrough, Pin, Scheme, ServerName,
};
pub use kubernetes::{
    ApiResource, ExecPlugin, Impersonate, Kubernetes, KubernetesCase, KubernetesLogin, KubernetesMethod,
    KubernetesObligations, KubernetesTarget, KubernetesUpstream, PatchKind, PodStream, Risk, ServiceAccount,
    ShownSecrets,
};
pub use model::{
    ClientCertificate, Credential, GrantOn, Host, Login, PostgresUpstream, Privilege, Resource, ResourceKind,
    RoleGrant, RoleTemplate, SecretRef, Subject, Tls, TlsMode, Upstream,
};
pub use own::{Arg, OwnPermit, OwnQuery, OwnSql, OwnSqlError};
pub use pattern::Glob;
pub use policy::{Grant, Policy, Question, Source};
pub use raw::{OutsideJobs, RuleEffect};
pub use ssh::{
    Assignment, Bounded, Certainty, Exec, FileCase, FileOperation, FileRequest, HostKey, Invocation,
    LoginMethod, PathUse, PublicKey, Route, Signer, Ssh, SshCase, SshLimits, SshLogin, SshObligations,
    SshRequest, SshUpstream, UserCertificate, Vault, VaultLogin, Word,
};
pub use verdict::{
    Ahead, Allow, ApprovalTerms, ColumnMasks, Denial, Effect, Limits, Obligations, OutputMask, OutputMasks,
    Permit, Recording, UnixTime, Verdict,
};

/// JSON Schema of the policy language, generated from the types that read it.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(raw::RawPolicy).to_value()
}
