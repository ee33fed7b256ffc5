//! Statement analysis, away from the session workers.
//!
//! SQL nests as deep as its author likes and both parsers recurse, so analysis has a thread with a stack that
//! holds the longest text policy admits. One such thread serves one session worker.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};

use policy::{Grant, Named, Policy, Resource, Subject, UnixTime};
use protocol::postgres::{
    gate::{self, Ruling},
    sql::Catalogue,
};
use tokio::sync::oneshot;

const STACK: usize = 128 << 20;

/// What decisions depend on besides the text, shared by all sessions of a subject on a database.
#[derive(Debug)]
pub struct Scope {
    pub policy: Arc<Policy>,
    pub subject: Arc<Subject>,
    pub resource: Arc<Resource>,
    pub catalogue: Arc<Catalogue>,
    pub max_bytes: usize,
    /// Policy lets everything through: what names mean is not looked up.
    pub open: bool,
}

struct Request {
    scope: Arc<Scope>,
    sql: String,
    names: Vec<(Named, String)>,
    grant: Option<Grant>,
    now: UnixTime,
    reply: oneshot::Sender<Ruling>,
}

/// Handle to an analysis thread.
#[derive(Debug, Clone)]
pub struct Analysis {
    requests: mpsc::Sender<Request>,
}

/// The analysis thread is gone; nothing can be decided.
#[derive(Debug, thiserror::Error)]
#[error("statement analysis is not running")]
pub struct Stopped;

impl Analysis {
    /// Starts a thread; it ends when the last handle is dropped.
    ///
    /// # Errors
    /// Fails when the thread cannot be made.
    pub fn start(name: String) -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel::<Request>();
        thread::Builder::new().name(name).stack_size(STACK).spawn(move || {
            for request in receiver {
                let Request { scope, sql, names, grant, now, reply } = request;
                let cx = gate::Context {
                    policy: &scope.policy,
                    subject: &scope.subject,
                    resource: &scope.resource,
                    catalogue: &scope.catalogue,
                    now,
                    grant: grant.as_ref(),
                    max_bytes: scope.max_bytes,
                };
                let ruling = gate::decide(&cx, &sql, &|name| {
                    names.iter().find(|(n, _)| n == name).map(|(_, t)| t.clone())
                });
                // A session that ended meanwhile no longer waits.
                let _ = reply.send(ruling);
            }
        })?;
        Ok(Self { requests })
    }

    /// Decides `sql`. A receiver that yields an error means deny.
    ///
    /// # Errors
    /// Fails when the thread is gone.
    pub fn decide(
        &self,
        scope: &Arc<Scope>,
        sql: String,
        names: Vec<(Named, String)>,
        grant: Option<Grant>,
        now: UnixTime,
    ) -> Result<oneshot::Receiver<Ruling>, Stopped> {
        let (reply, receiver) = oneshot::channel();
        self.requests
            .send(Request { scope: Arc::clone(scope), sql, names, grant, now, reply })
            .map_err(|_| Stopped)?;
        Ok(receiver)
    }
}
