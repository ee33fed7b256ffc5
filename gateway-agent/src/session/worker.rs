//! Session workers: one thread, one runtime, both sockets of a session on it.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::TcpStream as StdStream,
    rc::{Rc, Weak},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use policy::{Permit, Resource, ResourceKind};
use protocol::postgres::{BackendKey, sql::Catalogue};
use tokio::{net::TcpStream, sync::mpsc, task::LocalSet};

use super::{
    Shared,
    analysis::{Analysis, Scope},
    http, postgres,
    registry::Registration,
    scope::{Decisions, Key},
    side::Side,
    ssh,
};
use crate::{
    credential::Account,
    intercept::Flow,
    upstream::{FRESH, Place},
};

/// One worker, as its sessions see it.
pub struct Worker {
    pub shared: Arc<Shared>,
    pub analysis: Analysis,
    decisions: RefCell<HashMap<Key, Weak<Decisions>>>,
    /// By database and user.
    sides: RefCell<HashMap<(Place, String), Weak<Side>>>,
}

/// An accepted flow that passed everything before its first byte.
pub struct Admitted {
    pub flow: Flow,
    pub resource: Arc<Resource>,
    pub registration: Registration,
    pub tcp: StdStream,
}

/// Hands flows to a worker thread.
#[derive(Debug, Clone)]
pub struct Handle {
    flows: mpsc::UnboundedSender<Admitted>,
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admitted({:?})", self.flow)
    }
}

/// Names that could not be compared with the server's for this long count no more.
const STALE: Duration = Duration::from_secs(60);

/// Epochs never repeat, on whichever worker.
static EPOCH: AtomicU64 = AtomicU64::new(1);
static CANCEL_PID: AtomicU32 = AtomicU32::new(1);

/// Starts a worker. It ends when its handles are gone and its sessions are over.
///
/// # Errors
/// Fails when threads cannot be made.
pub fn start(number: usize, shared: Arc<Shared>) -> io::Result<(Handle, JoinHandle<()>)> {
    let analysis = Analysis::start(format!("analysis-{number}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (flows, mut receiver) = mpsc::unbounded_channel::<Admitted>();
    let thread = thread::Builder::new().name(format!("session-{number}")).spawn(move || {
        let worker =
            Rc::new(Worker { shared, analysis, decisions: RefCell::default(), sides: RefCell::default() });
        let local = LocalSet::new();
        local.spawn_local(async move {
            while let Some(admitted) = receiver.recv().await {
                let worker = Rc::clone(&worker);
                tokio::task::spawn_local(serve(worker, admitted));
            }
        });
        runtime.block_on(local);
    })?;
    Ok((Handle { flows }, thread))
}

impl Handle {
    /// Gives a flow to the worker; false when it is gone, and the flow with it.
    pub fn serve(&self, admitted: Admitted) -> bool {
        self.flows.send(admitted).is_ok()
    }
}

async fn serve(worker: Rc<Worker>, admitted: Admitted) {
    let Admitted { flow, resource, registration, tcp } = admitted;
    let tcp = tcp
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(tcp))
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp));
    match (tcp, resource.kind()) {
        (Ok(tcp), ResourceKind::Postgres) => {
            // Boxed: the future is large and lives as long as the session.
            Box::pin(postgres::serve(worker, flow, resource, registration, tcp)).await;
        }
        (Ok(tcp), ResourceKind::Ssh) => {
            Box::pin(ssh::serve(worker, flow, resource, registration, tcp)).await;
        }
        (Ok(tcp), ResourceKind::Https | ResourceKind::Kubernetes) => {
            Box::pin(http::serve(worker, flow, resource, registration, tcp)).await;
        }
        (Err(error), _) => tracing::warn!(%error, "an accepted connection cannot be used"),
    }
}

impl Worker {
    /// A cancel key that no other session has.
    pub fn new_key(&self) -> io::Result<BackendKey> {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| io::Error::other("no randomness"))?;
        Ok(BackendKey { pid: CANCEL_PID.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff, secret })
    }

    /// The decisions for `key` under the policy and catalogue in force; `None` when policy no longer knows the
    /// subject or the resource.
    pub fn decisions(
        self: &Rc<Self>,
        key: Key,
        catalogue: Arc<Catalogue>,
        permit: Permit,
    ) -> Option<Rc<Decisions>> {
        let known = self.decisions.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known {
            return self.put_in_force(&known, catalogue).then_some(known);
        }
        let scope = self.scope(&key, catalogue)?;
        let stay = self.shared.catalogues.stay(&key.place);
        let made = Rc::new(Decisions::new(key.clone(), permit, stay, scope, next_epoch()));
        let mut all = self.decisions.borrow_mut();
        all.retain(|_, cell| cell.strong_count() > 0);
        all.insert(key, Rc::downgrade(&made));
        tokio::task::spawn_local(follow_catalogue(Rc::clone(self), Rc::downgrade(&made)));
        Some(made)
    }

    /// The connections beside sessions of this login; none is made before it is needed.
    pub fn side(&self, resource: &Arc<Resource>, place: &Place, user: &str, account: Account) -> Rc<Side> {
        let key = (place.clone(), user.to_owned());
        let mut sides = self.sides.borrow_mut();
        // A resource that has changed since has other secrets, or another way of TLS.
        let known = sides.get(&key).and_then(Weak::upgrade).filter(|side| side.serves(resource));
        if let Some(known) = known {
            return known;
        }
        let made = Side::new(Arc::clone(&self.shared), Arc::clone(resource), place.clone(), account);
        sides.retain(|_, side| side.strong_count() > 0);
        sides.insert(key, Rc::downgrade(&made));
        made
    }

    /// Follows the policy; false when it no longer knows the subject or the resource.
    pub fn refresh(&self, decisions: &Decisions) -> bool {
        let catalogue = Arc::clone(&decisions.scope().catalogue);
        self.put_in_force(decisions, catalogue)
    }

    /// What names mean may have changed: statements wait until the catalogue is read again.
    pub fn catalogue_changed(self: &Rc<Self>, decisions: &Rc<Decisions>) {
        if decisions.scope().open {
            return;
        }
        let Some(done) = decisions.begin_reading() else { return };
        let (worker, decisions) = (Rc::clone(self), Rc::clone(decisions));
        tokio::task::spawn_local(async move {
            let shared = &worker.shared;
            let scope = decisions.scope();
            let place = &decisions.key.place;
            shared.catalogues.doubt(place);
            match shared
                .catalogues
                .get(&shared.tls, &decisions.permit, &scope.resource, place, &shared.mask_key)
                .await
            {
                Ok(catalogue) => {
                    decisions.names_known.set(true);
                    worker.put_in_force(&decisions, catalogue);
                }
                Err(error) => {
                    decisions.names_known.set(false);
                    tracing::warn!(%error, resource = %place.resource, "catalogue cannot be read again");
                }
            }
            drop(done);
        });
    }

    fn put_in_force(&self, decisions: &Decisions, catalogue: Arc<Catalogue>) -> bool {
        let current = decisions.scope();
        let policy = self.shared.policy.load();
        if Arc::ptr_eq(&current.policy, &policy.policy) && Arc::ptr_eq(&current.catalogue, &catalogue) {
            return true;
        }
        let same_names = Arc::ptr_eq(&current.catalogue, &catalogue);
        match self.scope(&decisions.key, catalogue) {
            // Where everything was let through, nobody read what names mean.
            Some(scope) if current.open && !scope.open && same_names => false,
            Some(scope) => {
                decisions.replace(scope, next_epoch());
                true
            }
            None => false,
        }
    }

    fn scope(&self, key: &Key, catalogue: Arc<Catalogue>) -> Option<Scope> {
        let policy = self.shared.policy.load();
        let subject = policy.policy.subject_named(&key.subject)?;
        let resource = Arc::clone(policy.policy.resource_named(&key.place.resource)?);
        Some(Scope {
            open: policy.policy.lets_everything(&subject, &resource),
            subject,
            resource,
            policy: Arc::clone(&policy.policy),
            catalogue,
            max_bytes: self.shared.config.sessions.sql_max_bytes,
        })
    }
}

/// Keeps the names that open sessions are decided by true, whoever changes them. Where the server cannot be asked for
/// longer than [`STALE`], nothing is decided until it can.
async fn follow_catalogue(worker: Rc<Worker>, of: Weak<Decisions>) {
    let shared = Arc::clone(&worker.shared);
    let mut known = Instant::now();
    loop {
        tokio::time::sleep(FRESH).await;
        let Some(decisions) = of.upgrade() else { break };
        let scope = decisions.scope();
        if scope.open {
            known = Instant::now();
            continue;
        }
        let at = &decisions.key.place;
        let read =
            shared.catalogues.get(&shared.tls, &decisions.permit, &scope.resource, at, &shared.mask_key);
        match read.await {
            Ok(catalogue) => {
                known = Instant::now();
                // One that is being read because of a change of this session's own is newer.
                if decisions.reading().is_none() {
                    decisions.names_known.set(true);
                    worker.put_in_force(&decisions, catalogue);
                }
            }
            Err(error) => {
                tracing::warn!(%error, resource = %at.resource, "catalogue cannot be compared");
                if known.elapsed() > STALE {
                    decisions.names_known.set(false);
                }
            }
        }
    }
}

fn next_epoch() -> u64 {
    EPOCH.fetch_add(1, Ordering::Relaxed)
}
