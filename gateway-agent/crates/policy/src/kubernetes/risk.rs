//! What an object may ask for that reaches beyond it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something in the body of a request that gives whoever controls the object more than the object itself. Found wherever it
/// stands: in a pod, in a template, in a patch, in an object of a kind that nobody here knows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// A privileged container, one that may gain privileges, or an unmasked /proc.
    Privileged,
    /// Files of the node.
    HostPath,
    /// The node's network, or one of its ports.
    HostNetwork,
    /// The node's processes.
    HostPid,
    /// The node's IPC.
    HostIpc,
    /// Added capabilities.
    Capabilities,
    /// Seccomp, AppArmor or SELinux as the object wants them.
    Unconfined,
    /// A service account other than the namespace's default.
    ServiceAccount,
    /// Contents of Secrets in a pod, where logs and commands show them.
    Secrets,
    /// A container put into a running pod.
    EphemeralContainer,
    /// Owners: deleting one deletes the object, and finalizers keep both.
    OwnerReferences,
    /// The node is named, past the scheduler and what it looks at.
    NodeName,
    /// Rights are handed out: a binding, or a role that may bind, escalate, impersonate or anything.
    Escalation,
    /// Code that the API server calls for every request: webhooks, aggregated APIs, conversions.
    ApiExtension,
    /// A JSON patch whose effect cannot be told from its text.
    Unseen,
}

impl Risk {
    pub const ALL: [Self; 15] = [
        Self::Privileged,
        Self::HostPath,
        Self::HostNetwork,
        Self::HostPid,
        Self::HostIpc,
        Self::Capabilities,
        Self::Unconfined,
        Self::ServiceAccount,
        Self::Secrets,
        Self::EphemeralContainer,
        Self::OwnerReferences,
        Self::NodeName,
        Self::Escalation,
        Self::ApiExtension,
        Self::Unseen,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::HostPath => "host_path",
            Self::HostNetwork => "host_network",
            Self::HostPid => "host_pid",
            Self::HostIpc => "host_ipc",
            Self::Capabilities => "capabilities",
            Self::Unconfined => "unconfined",
            Self::ServiceAccount => "service_account",
            Self::Secrets => "secrets",
            Self::EphemeralContainer => "ephemeral_container",
            Self::OwnerReferences => "owner_references",
            Self::NodeName => "node_name",
            Self::Escalation => "escalation",
            Self::ApiExtension => "api_extension",
            Self::Unseen => "unseen",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "a privileged container",
            Self::HostPath => "files of the node",
            Self::HostNetwork => "the node's network",
            Self::HostPid => "the node's processes",
            Self::HostIpc => "the node's IPC",
            Self::Capabilities => "added capabilities",
            Self::Unconfined => "a container without the usual confinement",
            Self::ServiceAccount => "another service account",
            Self::Secrets => "Secrets inside of a pod",
            Self::EphemeralContainer => "a container put into a running pod",
            Self::OwnerReferences => "owner references or finalizers",
            Self::NodeName => "a node of its choice",
            Self::Escalation => "rights that are handed out",
            Self::ApiExtension => "code that the API server calls",
            Self::Unseen => "a patch whose effect cannot be told",
        })
    }
}
