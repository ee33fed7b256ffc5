//! Ids of the decisions that no written rule makes.

/// No rule allows it.
pub const DEFAULT_DENY: &str = "builtin:default-deny";
/// A masked column would decide which rows come back, or in what order.
pub const MASKED_PREDICATE: &str = "builtin:masked-predicate";
/// A masked value would be stored where no mask follows it.
pub const LAUNDERING: &str = "builtin:laundering";
/// The statement could not be understood. Given by whoever reads statements.
pub const UNPARSABLE: &str = "builtin:unparsable";
/// A session setting that statements are read by, or that is not known to be harmless, would change.
pub const PINNED_SETTING: &str = "builtin:pinned-setting";
/// A replication connection, which reads everything, without a rule that says so.
pub const REPLICATION: &str = "builtin:replication";
/// The name may be resolved, but not to records of this type.
pub const DNS_TYPE: &str = "builtin:dns-type";
/// A bound on questions to resolvers. Given by whoever counts them.
pub const DNS_LIMIT: &str = "builtin:dns-limit";
/// Servers read the path differently.
pub const AMBIGUOUS_PATH: &str = "builtin:ambiguous-path";
/// The request breaks HTTP, or is written in a way that servers read differently. Given by whoever reads requests.
pub const HTTP: &str = "builtin:http";
/// An object asks for something beyond itself that no rule names: people are asked.
pub const RISK: &str = "builtin:risk";
/// A request to an API server that could not be read. Given by whoever reads requests.
pub const KUBERNETES: &str = "builtin:kubernetes";
/// A request that says whom the gateway should act as. Given by whoever reads requests.
pub const IMPERSONATION: &str = "builtin:impersonation";
/// The statement names more than can be looked at.
pub const TOO_COMPLEX: &str = "builtin:too-complex";
