//! The policy language as it is written. Nothing here has been checked beyond its shape; `check` does that.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use mask::Transform;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer as _},
};

use crate::{
    action::Class,
    check::kind,
    dns::RecordKind,
    gate::OnExceed,
    http::raw::{RawHttp, RawInject},
    kubernetes::raw::{RawExecPlugin, RawImpersonate, RawKubernetes, RawServiceAccount},
    model::Privilege,
    ssh::raw::{RawSsh, RawUserCertificate, RawUsers},
    verdict::Recording,
};

/// A policy: who may do what on which upstream, and what of the answer they see.
///
/// Whatever no rule allows is denied; deny beats approve beats allow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "gateway policy")]
pub(crate) struct RawPolicy {
    /// Version of the language: 1.
    #[schemars(range(min = 1, max = 1))]
    pub(crate) version: u32,
    /// Names for sets of verified claims. The first subject that a token matches is the job's.
    #[serde(default)]
    pub(crate) subjects: Vec<RawSubject>,
    /// Names for sets of subjects.
    #[serde(default)]
    pub(crate) groups: Vec<RawGroup>,
    /// Upstreams.
    #[serde(default)]
    pub(crate) resources: Vec<RawResource>,
    #[serde(default)]
    pub(crate) rules: Vec<RawRule>,
    #[serde(default)]
    pub(crate) masks: Vec<RawMask>,
    /// Which names jobs may resolve, besides those of the resources that they may connect to.
    pub(crate) dns: Option<RawDns>,
}

/// Names and how often they may be asked for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDns {
    pub(crate) limits: Option<RawNameLimits>,
    #[serde(default)]
    pub(crate) rules: Vec<RawNameRule>,
}

/// Bounds on what each job asks. Of several files the strictest count.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawNameLimits {
    /// Longest name in bytes. Default 128.
    #[schemars(range(min = 1, max = 253))]
    pub(crate) name_bytes: Option<u32>,
    /// Most labels of a name. Default 10.
    #[schemars(range(min = 1, max = 127))]
    pub(crate) labels: Option<u32>,
    /// Questions a second. Default 50.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) per_second: Option<u32>,
    /// Different names in any minute, those of resources aside. Default 200.
    #[schemars(range(min = 1, max = 10_000))]
    pub(crate) names_per_minute: Option<u32>,
    /// Longest answer in bytes. Default 4096.
    #[schemars(range(min = 1, max = 65_535))]
    pub(crate) response_bytes: Option<u32>,
}

/// Which names some subjects may or may not resolve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawNameRule {
    /// Appears in refusals and the audit log.
    pub(crate) id: String,
    /// allow or deny.
    pub(crate) effect: RuleEffect,
    /// Subjects and groups. A deny rule without it is for everyone.
    pub(crate) subjects: Option<Vec<String>>,
    /// `packages.example` for that name, `*.packages.example` for all names below it, `*` for every name.
    pub(crate) names: Vec<String>,
    /// Default: A and AAAA; for a deny rule all.
    pub(crate) types: Option<Vec<RecordKind>>,
    /// RFC 3339 time from which the rule no longer counts.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) expires: Option<String>,
    /// For deny rules: what the person at the client is told.
    pub(crate) reason: Option<String>,
}

/// A name for a set of verified claims.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSubject {
    pub(crate) name: String,
    /// The token's `iss`, exactly.
    pub(crate) issuer: String,
    /// All must match. A key that starts with `/` is a JSON pointer into nested claims. Values may use `*`
    /// and `?`; of a list, one has to match; of a claim that is a list, one element has to match.
    pub(crate) claims: RawClaims,
}

/// A name for a set of subjects and other groups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGroup {
    pub(crate) name: String,
    /// Subjects and groups.
    pub(crate) members: Vec<String>,
}

/// An upstream. Which fields it has depends on its kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = kind::conditions)]
pub(crate) struct RawResource {
    pub(crate) name: String,
    pub(crate) kind: RawKind,
    /// Addresses, networks and names by which jobs reach it.
    pub(crate) hosts: Vec<String>,
    /// Default 5432 for postgres, 22 for ssh, 443 for https, 6443 for kubernetes.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    /// postgres: databases that jobs may name; `*` and `?` are wildcards.
    pub(crate) databases: Option<Vec<String>>,
    /// The gateway's own account: jobs' sessions use it, or have roles made by it.
    pub(crate) login: Option<RawLogin>,
    /// postgres: what sessions of jobs log in with.
    pub(crate) credential: Option<RawCredential>,
    /// For `credential: ephemeral`: what the roles made for jobs may do.
    pub(crate) role: Option<RawRole>,
    /// postgres, https, kubernetes; for the latter two `verify-full` by the host's own certificates when missing.
    pub(crate) tls: Option<RawTls>,
    /// postgres: schemas in which the server looks up unqualified names after pg_catalog. Default: public.
    pub(crate) search_path: Option<Vec<String>>,
    /// ssh: the host's public keys (`ssh-ed25519 AAAA…`), or their fingerprints (`SHA256:…`).
    pub(crate) host_keys: Option<Vec<String>>,
    /// ssh: public keys of authorities that sign the host's key.
    pub(crate) host_ca: Option<Vec<String>>,
    /// ssh: login names that jobs may ask for; `*` and `?` are wildcards.
    pub(crate) users: Option<Vec<String>>,
    /// https, kubernetes: further names by which jobs may call it, at the addresses and networks in `hosts`. `*.pages.example` is any one
    /// label before that.
    pub(crate) names: Option<Vec<String>>,
    /// https: those of `ports` on which there is no TLS, on both legs.
    pub(crate) http_ports: Option<Vec<u16>>,
    /// https: header fields that the gateway sets.
    pub(crate) inject: Option<Vec<RawInject>>,
    /// https: header fields of the job that are dropped.
    pub(crate) strip: Option<Vec<String>>,
    /// kubernetes: whom the gateway acts as. Default: as itself.
    pub(crate) impersonate: Option<RawImpersonate>,
    /// Processes of the host that are in no job: refused, as by default, or left alone. Leaving them alone
    /// opens the resource to whatever a job gets another process of the host to do.
    #[serde(default)]
    pub(crate) outside_jobs: OutsideJobs,
}

/// What processes in no job may do with a resource's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutsideJobs {
    /// Only the gateway reaches it.
    #[default]
    Deny,
    /// They connect to it as if there were no gateway.
    Allow,
}

/// The protocol an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawKind {
    Postgres,
    Ssh,
    Https,
    Kubernetes,
}

/// The gateway's own account upstream.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLogin {
    /// ssh: whoever a job asks to be, when `users` does not have it. Default: the name that the job asks for.
    pub(crate) user: Option<String>,
    /// postgres: may be missing where there is a certificate.
    pub(crate) password: Option<RawSecret>,
    /// postgres, kubernetes: shown to a server that asks for one in the TLS handshake.
    pub(crate) certificate: Option<RawCertificate>,
    /// postgres: roles that a job may ask for by its own user name: the gateway then logs in as that role, with the same
    /// secret. Whoever asks for another name gets `user`. Default: none.
    pub(crate) roles: Option<Vec<String>>,
    /// ssh: a private key in OpenSSH's format, without a passphrase.
    pub(crate) key: Option<RawSecret>,
    /// ssh: a certificate that the gateway signs for each session.
    pub(crate) user_certificate: Option<RawUserCertificate>,
    /// ssh: login names that jobs ask for, and whom the gateway logs in as then.
    pub(crate) users: Option<RawUsers>,
    /// kubernetes: a bearer token.
    pub(crate) token: Option<RawSecret>,
    /// kubernetes: a program that prints a credential.
    pub(crate) exec: Option<RawExecPlugin>,
    /// kubernetes: an account whose tokens, valid for minutes, are asked for with the above and used for everything else.
    pub(crate) service_account: Option<RawServiceAccount>,
}

/// A client certificate. Both files are read again when the policy is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawCertificate {
    /// Absolute path of a PEM file: the certificate, then its issuers.
    pub(crate) chain: String,
    /// Absolute path of a PEM file with its key, private to the gateway's user.
    pub(crate) key: String,
}

/// What sessions of jobs log in with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawCredential {
    /// The resource's own login.
    #[default]
    Static,
    /// A role made for each job, and dropped with it. The login needs CREATEROLE and what the template grants.
    Ephemeral,
}

/// What a role that is made for a job may do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRole {
    /// How long it can log in, `12h` by default.
    pub(crate) valid_for: Option<String>,
    /// Connections at once, the gateway's own for estimates included. Default 50.
    pub(crate) connections: Option<u32>,
    /// Roles that it is a member of.
    #[serde(default)]
    pub(crate) member_of: Vec<String>,
    #[serde(default)]
    pub(crate) grants: Vec<RawGrant>,
}

/// Privileges on things. Names are exact, without quotes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawGrant {
    /// usage and create for schemas; select, insert, update, delete and truncate for tables.
    pub(crate) privileges: Vec<Privilege>,
    #[serde(default)]
    pub(crate) schemas: Vec<String>,
    /// `schema.table`.
    #[serde(default)]
    pub(crate) tables: Vec<String>,
    /// The tables that these schemas have when the role is made.
    #[serde(default)]
    pub(crate) all_tables_in: Vec<String>,
}

/// Where a secret is kept; exactly one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct RawSecret {
    /// Absolute path of a file.
    pub(crate) file: Option<String>,
    /// Environment variable of the agent.
    pub(crate) env: Option<String>,
    /// Name of a systemd credential of the agent's unit.
    pub(crate) credential: Option<String>,
}

/// TLS towards the upstream. Written out always: there is no default to forget.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTls {
    pub(crate) mode: RawTlsMode,
    /// Name the certificate must carry. Default: the host that the job named.
    pub(crate) server_name: Option<String>,
    /// Absolute path of PEM certificates to trust instead of the host's own.
    pub(crate) ca: Option<String>,
    /// https: SHA-256 of public keys, one of which the server has to have besides, as `sha256//BASE64`.
    pub(crate) pins: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RawTlsMode {
    /// Certificate chain and name.
    VerifyFull,
    /// Certificate chain only.
    VerifyCa,
    /// Clear text: only for an upstream on the same host or in a tunnel.
    Disable,
}

/// What some subjects may or may not do on some resources.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    /// Appears in verdicts, errors and the audit log.
    pub(crate) id: String,
    pub(crate) effect: RuleEffect,
    /// Subjects and groups. A deny rule without it is for everyone.
    pub(crate) subjects: Option<Vec<String>>,
    /// Resources. A deny rule without it is for all of them.
    pub(crate) resources: Option<Vec<String>>,
    /// Opening a session.
    #[serde(default)]
    pub(crate) connect: bool,
    /// Opening a replication connection: backups, write-ahead log, logical decoding. Only beside `connect` and
    /// `everything`.
    #[serde(default)]
    pub(crate) replication: bool,
    /// Statements, by what they do and to what.
    pub(crate) statements: Option<RawStatements>,
    /// What is asked of SSH hosts.
    pub(crate) ssh: Option<RawSsh>,
    /// Requests to HTTP hosts.
    pub(crate) http: Option<RawHttp>,
    /// Requests to API servers.
    pub(crate) kubernetes: Option<RawKubernetes>,
    /// Bounds on each statement. Of several rules that allow a statement the strictest count.
    #[serde(default)]
    pub(crate) limits: RawLimits,
    /// What is recorded. Of several rules that allow a statement the one that records most counts.
    pub(crate) record: Option<Recording>,
    /// RFC 3339 time from which the rule no longer counts.
    #[schemars(extend("format" = "date-time"))]
    pub(crate) expires: Option<String>,
    /// For approve rules, and for limits with `on_exceed: ask`: who has to agree.
    pub(crate) approval: Option<RawApproval>,
    /// For deny rules: what the person at the client is told.
    pub(crate) reason: Option<String>,
}

/// Bounds on each statement that the rule grants part of. Each is a value, or `{ at_most: …, on_exceed: … }`.
#[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLimits {
    /// Rows returned. Beyond: the result is cut off and the statement cancelled.
    pub(crate) rows: Option<RawLimit<u64>>,
    /// Bytes of result frames. Beyond: as `rows`.
    pub(crate) bytes: Option<RawLimit<u64>>,
    /// Cost that the server's planner estimates, in its units. Beyond: `deny` (default) or `ask`.
    pub(crate) max_cost: Option<RawLimit<f64>>,
    /// Rows that the planner expects to come back or to be changed. Beyond: `deny` (default) or `ask`.
    pub(crate) max_rows_estimated: Option<RawLimit<u64>>,
    /// From being sent to the server until its end, as `30s` or `5m`. Beyond: `cancel`.
    pub(crate) time: Option<RawLimit<String>>,
    /// Waiting for one lock, as `5s`. Beyond: `cancel`.
    pub(crate) lock_wait: Option<RawLimit<String>>,
    /// Statements of one job that the rule grants, in any 60 seconds. Beyond: `deny` (default) or `ask`.
    pub(crate) statements_per_minute: Option<RawLimit<u64>>,
    /// The same, as long as the job lives. Beyond: `deny` (default) or `ask`.
    pub(crate) statements_per_job: Option<RawLimit<u64>>,
}

/// A limit, alone or with what happens beyond it.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub(crate) enum RawLimit<T> {
    Plain(T),
    Full(RawFullLimit<T>),
}

/// A limit and what happens beyond it.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFullLimit<T> {
    pub(crate) at_most: T,
    pub(crate) on_exceed: Option<OnExceed>,
}

impl<T> RawLimit<T> {
    pub(crate) fn parts(&self) -> (&T, Option<OnExceed>) {
        match self {
            Self::Plain(most) => (most, None),
            Self::Full(full) => (&full.at_most, full.on_exceed),
        }
    }
}

/// Written out, because the error of an untagged enum does not say what was wrong.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for RawLimit<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = RawLimit<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit, or {at_most: …, on_exceed: deny | cancel | ask}")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(RawLimit::Plain)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(RawLimit::Plain)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(RawLimit::Plain)
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(RawLimit::Plain)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                RawFullLimit::deserialize(de::value::MapAccessDeserializer::new(map)).map(RawLimit::Full)
            }
        }
        deserializer.deserialize_any(Visitor(std::marker::PhantomData))
    }
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleEffect {
    /// Grants what it names.
    Allow,
    /// Grants what it names once people have agreed, each time.
    Approve,
    /// Refuses every statement that touches what it names.
    Deny,
}

/// Statements, by what they do and to what.
///
/// An allow rule grants these commands on these objects; a statement is allowed when allow rules together
/// cover every command, relation, column, function and setting in it. A deny or approve rule applies to a
/// statement as soon as one of its commands touches one of the objects, or, with no objects named, to
/// every statement with one of the commands.
#[derive(Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawStatements {
    /// Commands by class.
    pub(crate) classes: Vec<Class>,
    /// Commands by name: `delete`, `drop_table`.
    pub(crate) kinds: Vec<String>,
    /// `schema.relation` with wildcards: whole relations.
    pub(crate) relations: Vec<String>,
    /// `schema.relation.column` with wildcards: these columns and no others of the relation.
    pub(crate) columns: Vec<String>,
    /// `schema.function` with wildcards. Functions that only compute need no mention.
    pub(crate) functions: Vec<String>,
    /// Session settings that may be changed besides the harmless ones.
    pub(crate) settings: Vec<String>,
    /// Every statement, also what the gateway cannot read, and every setting. Only where nothing else restricts
    /// the same subjects on the same resources: no deny or approve rule, no mask.
    pub(crate) everything: bool,
    /// Also statements that cannot be seen through: DO blocks, dynamic SQL.
    pub(crate) opaque: bool,
    /// Definitions in pg_catalog and information_schema may be read. Default: true where reads are allowed.
    pub(crate) catalog: Option<bool>,
    /// Masked columns may decide which rows come back: filters, joins, orderings. That tells their values
    /// to whoever asks often enough.
    pub(crate) masked_predicates: bool,
}

/// Who has to agree.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawApproval {
    /// Distinct people. Default 1.
    #[schemars(range(min = 1))]
    pub(crate) quorum: Option<u32>,
    /// Users and `@groups` of the host. Default: whoever the agent's configuration lets approve.
    #[serde(default)]
    pub(crate) approvers: Vec<String>,
    /// How long a request waits, `10m` by default; then it is a deny.
    pub(crate) expires_after: Option<String>,
}

/// What of the answers is hidden.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawMask {
    pub(crate) id: String,
    /// Subjects and groups; everyone when missing.
    pub(crate) subjects: Option<Vec<String>>,
    /// Resources; all when missing.
    pub(crate) resources: Option<Vec<String>>,
    /// `schema.relation.column` with wildcards.
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    /// Only in the contents of these files of SSH hosts: paths with wildcards, as in `ssh: {files: …}`.
    #[serde(default)]
    pub(crate) files: Vec<String>,
    /// Values in JSON responses of HTTP hosts: `$.items[*].token`, `$..password`. A response that is no JSON is withheld there.
    #[serde(default)]
    pub(crate) json: Vec<String>,
    /// Only in responses of HTTP hosts for these paths: templates, as in `http: {paths: …}`.
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    /// Recognisers that look into every value: email, card, iban, phone, aws_access_key, github_token,
    /// slack_token, stripe_key, gcp_key, private_key, jwt.
    #[serde(default)]
    pub(crate) detectors: Vec<String>,
    /// How values are hidden. Of several masks the one that shows least counts.
    pub(crate) transform: Transform,
}

/// Claims by name.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawClaims(pub(crate) BTreeMap<String, ClaimValues>);

/// One value or a list of them.
#[derive(Debug)]
pub(crate) struct ClaimValues(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for ClaimValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ClaimValues;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a whole number, true, false or a list of those")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClaimValues, E> {
                Ok(ClaimValues(vec![text.to_owned()]))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<ClaimValues, E> {
                Ok(ClaimValues(vec![value.to_string()]))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<ClaimValues, E> {
                Ok(ClaimValues(vec![value.to_string()]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ClaimValues, E> {
                Ok(ClaimValues(vec![value.to_string()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<ClaimValues, A::Error> {
                let mut values = Vec::new();
                while let Some(ClaimValues(mut one)) = list.next_element()? {
                    values.append(&mut one);
                }
                Ok(ClaimValues(values))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for RawClaims {
    fn schema_name() -> Cow<'static, str> {
        "Claims".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = serde_json::json!({ "type": ["string", "integer", "boolean"] });
        schemars::json_schema!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": { "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] }
        })
    }
}
