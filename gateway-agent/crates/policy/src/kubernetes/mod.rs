//! Kubernetes: what jobs ask of API servers, which there are, and how both are decided.
//!
//! A request arrives here as the API server reads it (the protocol crate does), with what its body asks for beyond an ordinary
//! object. It is allowed when rules grant the request, each of those, and each part of a command that it runs in a pod.

mod action;
pub(crate) mod check;
pub(crate) mod evaluate;
pub(crate) mod explain;
pub(crate) mod matcher;
mod model;
mod obligations;
pub(crate) mod raw;
mod risk;
mod testing;

pub use action::{ApiResource, Kubernetes, KubernetesTarget, PatchKind, PodStream};
pub use model::{
    ExecPlugin, Impersonate, KubernetesLogin, KubernetesMethod, KubernetesUpstream, ServiceAccount,
};
pub use obligations::{KubernetesObligations, ShownSecrets};
pub use risk::Risk;
pub use testing::KubernetesCase;
