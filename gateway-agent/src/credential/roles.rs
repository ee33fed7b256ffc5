//! Roles made for jobs, and unmade.
//!
//! A job's first session on a database of a resource with `credential: ephemeral` has a role made there, by the
//! resource's own login; its other sessions there use the same one. When the job has ended the role is dropped, and what
//! a dead agent left is dropped by the next. The state knows every role before the server does, so none is lost.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policy::{Arg, Credential, GrantOn, OwnPermit, OwnSql, Permit, Policy, Resource, RoleTemplate, UnixTime};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use zeroize::Zeroizing;

use super::{CredentialError, Login, for_resource, scram};
use crate::{
    state::{StateError, Store},
    upstream::{OwnConnection, OwnError, Place, Target, Tls},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// Backends of a role get this long to go once they are told to.
const GOING: Duration = Duration::from_secs(5);
/// How often what could not be dropped is tried again.
pub const SWEEP: Duration = Duration::from_secs(30);
/// A role that is good for less than this is not given to a new session.
const MARGIN: Duration = Duration::from_secs(60);

struct Make;

impl OwnSql for Make {
    const SQL: &'static [&'static str] = &[
        "BEGIN",
        "CREATE ROLE {name} LOGIN PASSWORD {text} VALID UNTIL {text} CONNECTION LIMIT {number}",
        "COMMENT ON ROLE {name} IS {text}",
        // Who drops what a role owns has to be a member of it; superusers are of all.
        "GRANT {name} TO CURRENT_USER",
        "GRANT {name} TO {name}",
        "COMMIT",
    ];
}

struct Grants;

impl OwnSql for Grants {
    const SQL: &'static [&'static str] = &[
        "GRANT USAGE ON SCHEMA {name} TO {name}",
        "GRANT CREATE ON SCHEMA {name} TO {name}",
        "GRANT SELECT ON {name}.{name} TO {name}",
        "GRANT INSERT ON {name}.{name} TO {name}",
        "GRANT UPDATE ON {name}.{name} TO {name}",
        "GRANT DELETE ON {name}.{name} TO {name}",
        "GRANT TRUNCATE ON {name}.{name} TO {name}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA {name} TO {name}",
        "GRANT INSERT ON ALL TABLES IN SCHEMA {name} TO {name}",
        "GRANT UPDATE ON ALL TABLES IN SCHEMA {name} TO {name}",
        "GRANT DELETE ON ALL TABLES IN SCHEMA {name} TO {name}",
        "GRANT TRUNCATE ON ALL TABLES IN SCHEMA {name} TO {name}",
    ];
}

struct Unmake;

impl OwnSql for Unmake {
    const SQL: &'static [&'static str] = &[
        "SELECT 1::text FROM pg_catalog.pg_roles WHERE rolname = {text}",
        "ALTER ROLE {name} NOLOGIN",
        "SELECT pg_catalog.pg_terminate_backend(pid)::text FROM pg_catalog.pg_stat_activity WHERE usename = {text}",
        "REASSIGN OWNED BY {name} TO CURRENT_USER",
        "DROP OWNED BY {name}",
        "DROP ROLE {name}",
        // Roles of this host that it may have forgotten.
        "SELECT rolname::text FROM pg_catalog.pg_roles \
         WHERE pg_catalog.shobj_description(oid, 'pg_authid') = {text}",
    ];
}

/// A role as the state keeps it: never its password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRow {
    pub name: String,
    pub job: u64,
    pub resource: Arc<str>,
    pub address: SocketAddr,
    pub database: String,
    pub created: UnixTime,
}

/// Why a job has no role.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{step}: {source}")]
    Server { step: &'static str, source: OwnError },
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the job has ended")]
    Ended,
    #[error("no randomness")]
    Random,
}

/// All roles of this agent.
pub struct Roles {
    store: Arc<dyn Store>,
    tls: Arc<Tls>,
    mask_key: Arc<mask::Key>,
    host: String,
    book: Mutex<Book>,
    /// Something may have to be dropped.
    pub due: Notify,
}

#[derive(Default)]
struct Book {
    slots: HashMap<(u64, Place), Arc<AsyncMutex<Option<Made>>>>,
    /// In use or being made, and for which job. What is in the state and not here is to be dropped.
    live: HashMap<String, u64>,
}

struct Made {
    login: Login,
    resource: Arc<Resource>,
    until: SystemTime,
}

impl Roles {
    /// # Errors
    /// Fails when the state cannot be read or written.
    pub fn open(store: Arc<dyn Store>, tls: Arc<Tls>, mask_key: Arc<mask::Key>) -> Result<Self, RoleError> {
        let host = store.host_id(&hex::encode(random::<8>()?))?;
        Ok(Self { store, tls, mask_key, host, book: Mutex::default(), due: Notify::new() })
    }

    /// The role of a job on a database, made when there is none.
    ///
    /// # Errors
    /// Fails when it cannot be made. Nothing is left then that a later sweep would not find.
    pub async fn login(
        &self,
        permit: &Permit,
        resource: &Arc<Resource>,
        template: &RoleTemplate,
        place: &Place,
        job: u64,
    ) -> Result<Login, RoleError> {
        let slot = {
            let mut book = self.book();
            Arc::clone(book.slots.entry((job, place.clone())).or_default())
        };
        let mut made = slot.lock().await;
        if let Some(made) =
            made.as_ref().filter(|made| made.resource == *resource && made.until > SystemTime::now() + MARGIN)
        {
            return Ok(made.login.clone());
        }
        let name = format!("gw_{}_{job}_{}", self.host.get(..8).unwrap_or("x"), hex::encode(random::<5>()?));
        self.book().live.insert(name.clone(), job);
        let until = SystemTime::now() + template.valid_for;
        let row = RoleRow {
            name: name.clone(),
            job,
            resource: Arc::clone(&resource.name),
            address: place.address,
            database: place.database.clone(),
            created: crate::clock::now(),
        };
        let login = match self.make(permit, resource, template, place, &row, until).await {
            Ok(login) => login,
            Err(error) => {
                self.book().live.remove(&name);
                self.due.notify_one();
                return Err(error);
            }
        };
        // Its job may have ended meanwhile, and a sweep may have found nothing to drop.
        if !self.book().live.contains_key(&name) {
            self.store.put_role(&row)?;
            self.due.notify_one();
            return Err(RoleError::Ended);
        }
        // One made by another template is not given out again; it goes with its job.
        *made = Some(Made { login: login.clone(), resource: Arc::clone(resource), until });
        Ok(login)
    }

    async fn make(
        &self,
        permit: &Permit,
        resource: &Arc<Resource>,
        template: &RoleTemplate,
        place: &Place,
        row: &RoleRow,
        until: SystemTime,
    ) -> Result<Login, RoleError> {
        let secret = Zeroizing::new(random::<32>()?);
        let password = secrecy::SecretString::from(URL_SAFE_NO_PAD.encode(*secret));
        let verifier = Zeroizing::new(scram::verifier(password.expose_secret(), &random::<16>()?));
        self.store.put_role(row)?;
        let mut admin = self.connect(permit.own(), resource, place).await?;
        let name = Arg::Name(&row.name);
        let until = humantime::format_rfc3339_seconds(until).to_string();
        let comment = self.comment();
        let mut run = Runs { admin: &mut admin };
        run.one::<Make>("beginning", 0, &[]).await?;
        let limit = Arg::Number(template.connections.into());
        run.one::<Make>("creating the role", 1, &[name, Arg::Text(&verifier), Arg::Text(&until), limit])
            .await?;
        run.one::<Make>("marking the role", 2, &[name, Arg::Text(&comment)]).await?;
        run.one::<Make>("becoming a member of the role", 3, &[name]).await?;
        for role in &template.member_of {
            run.one::<Make>("making the role a member", 4, &[Arg::Name(role), name]).await?;
        }
        for grant in &template.grants {
            let at = grant.privilege as usize;
            let step = "granting the role what its template says";
            let done = match &grant.on {
                GrantOn::Schema(schema) => run.one::<Grants>(step, at, &[Arg::Name(schema), name]).await,
                GrantOn::Table(schema, table) => {
                    run.one::<Grants>(step, at, &[Arg::Name(schema), Arg::Name(table), name]).await
                }
                // These come after those of single tables: SELECT to TRUNCATE.
                GrantOn::AllTablesIn(schema) => {
                    run.one::<Grants>(step, at + 5, &[Arg::Name(schema), name]).await
                }
            };
            done?;
        }
        run.one::<Make>("committing", 5, &[]).await?;
        Ok(Login { user: row.name.clone(), password })
    }

    /// The job is over: what was made for it is to be dropped.
    pub fn ended(&self, job: u64) {
        let mut book = self.book();
        book.slots.retain(|(of, _), _| *of != job);
        let before = book.live.len();
        book.live.retain(|_, of| *of != job);
        if book.live.len() != before {
            self.due.notify_one();
        }
    }

    /// Drops every role that is of no use any more; what cannot be dropped is tried again later. `alive` tells whether a
    /// job is: a session that was logging in while its job ended may have had a role made since. Returns the names of those
    /// that are gone.
    ///
    /// # Errors
    /// Fails when the state cannot be read.
    pub async fn sweep(
        &self,
        policy: &Policy,
        alive: impl Fn(u64) -> bool,
    ) -> Result<Vec<String>, StateError> {
        let jobs: HashSet<u64> = self.book().live.values().copied().collect();
        jobs.into_iter().filter(|job| !alive(*job)).for_each(|job| self.ended(job));
        let mut dropped = Vec::new();
        for row in self.store.roles()? {
            if self.book().live.contains_key(&row.name) {
                continue;
            }
            let known = policy.resource_named(&row.resource).zip(policy.housekeeping(&row.resource));
            let Some((resource, permit)) = known else {
                tracing::error!(role = row.name, resource = %row.resource,
                    "a role cannot be dropped: policy no longer has its resource with `credential: ephemeral`");
                continue;
            };
            match self.drop_all(permit, resource, &row).await {
                Ok(names) => {
                    self.store.remove_role(&row.name)?;
                    dropped.extend(names);
                }
                Err(error) => {
                    tracing::error!(%error, role = row.name, resource = %row.resource, "a role cannot be dropped yet");
                }
            }
        }
        Ok(dropped)
    }

    /// Drops one role, and others of this host that its state has forgotten.
    async fn drop_all(
        &self,
        permit: OwnPermit,
        resource: &Arc<Resource>,
        row: &RoleRow,
    ) -> Result<Vec<String>, RoleError> {
        let place = Place {
            resource: Arc::clone(&row.resource),
            address: row.address,
            database: row.database.clone(),
        };
        let mut admin = self.connect(permit, resource, &place).await?;
        let mut run = Runs { admin: &mut admin };
        let mut dropped = Vec::new();
        if run.drop_role(&row.name).await? {
            dropped.push(row.name.clone());
        }
        let comment = self.comment();
        let mine = run.one::<Unmake>("listing roles", 6, &[Arg::Text(&comment)]).await?;
        let kept: HashSet<String> = self.store.roles()?.into_iter().map(|row| row.name).collect();
        for name in mine.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
            let forgotten = !kept.contains(&name) && !self.book().live.contains_key(&name);
            if !forgotten {
                continue;
            }
            match run.drop_role(&name).await {
                Ok(true) => dropped.push(name),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, role = name, "a forgotten role of this host cannot be dropped");
                }
            }
        }
        Ok(dropped)
    }

    async fn connect(
        &self,
        permit: OwnPermit,
        resource: &Arc<Resource>,
        place: &Place,
    ) -> Result<OwnConnection, RoleError> {
        let login = for_resource(permit.opens(), resource)?;
        let to = Target { tls: &self.tls, resource, place, mask_key: &self.mask_key };
        OwnConnection::open(to, permit, login, &[])
            .await
            .map_err(|source| RoleError::Server { step: "logging in as the resource's own user", source })
    }

    /// Tells the roles of one host from those of others.
    fn comment(&self) -> String {
        format!("made by gateway-agent for a job; host {}", self.host)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Runs<'a> {
    admin: &'a mut OwnConnection,
}

type Answer = Vec<Vec<Option<String>>>;

impl Runs<'_> {
    async fn one<Q: OwnSql>(
        &mut self,
        step: &'static str,
        at: usize,
        args: &[Arg<'_>],
    ) -> Result<Answer, RoleError> {
        self.admin.run::<Q>(at, args, PATIENCE).await.map_err(|source| RoleError::Server { step, source })
    }

    /// False: there is none.
    async fn drop_role(&mut self, role: &str) -> Result<bool, RoleError> {
        let (name, text) = (Arg::Name(role), Arg::Text(role));
        if self.one::<Unmake>("looking for the role", 0, &[text]).await?.is_empty() {
            return Ok(false);
        }
        self.one::<Unmake>("closing the role", 1, &[name]).await?;
        let end = tokio::time::Instant::now() + GOING;
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        // Until none is left: the answer has a row for each that is.
        while !self.one::<Unmake>("ending its sessions", 2, &[text]).await?.is_empty()
            && tokio::time::Instant::now() < end
        {
            ticks.tick().await;
        }
        self.one::<Unmake>("reassigning what it owns", 3, &[name]).await?;
        self.one::<Unmake>("dropping its rights", 4, &[name]).await?;
        self.one::<Unmake>("dropping the role", 5, &[name]).await?;
        Ok(true)
    }
}

fn random<const N: usize>() -> Result<[u8; N], RoleError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RoleError::Random)?;
    Ok(bytes)
}

/// The template, where roles are made for jobs.
pub fn template(resource: &Resource) -> Option<&RoleTemplate> {
    match &resource.postgres()?.credential {
        Credential::Static => None,
        Credential::Ephemeral(template) => Some(template),
    }
}
