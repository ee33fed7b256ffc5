//! What names mean on each database: read with the gateway's own credential, before a session is served.

use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use policy::{Permit, Resource};
use protocol::{
    Leg, Step,
    postgres::{
        Allowed, BackendKey, Decision, Event, Login, NoOrigins, Outcome, Session, Settings,
        sql::{CATALOGUE_SQL, Catalogue, Row},
    },
};
use tokio::sync::Mutex as AsyncMutex;

use super::{Tls, UpstreamError, connect, search_path, start_tls};
use crate::{
    credential::{self, CredentialError},
    session::legs::{self, Moved, Pipe, poll_upstream},
};

/// A catalogue older than this is read again for the next session.
const FRESH: Duration = Duration::from_secs(60);
/// Reading it may take this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Cells read at most: a server cannot make the gateway hold more.
const MAX_CELLS: usize = 8_000_000;

/// Catalogues by resource, address and database.
#[derive(Default)]
pub struct Catalogues {
    known: Mutex<HashMap<Place, Arc<Slot>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub resource: Arc<str>,
    pub address: SocketAddr,
    pub database: String,
}

/// One reader at a time; the others wait for its result.
#[derive(Default)]
struct Slot(AsyncMutex<Option<(Arc<Catalogue>, Instant)>>);

/// Why names are unknown. Without them nothing can be decided, so nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("reading the server's catalogue: {0}")]
    Read(String),
    #[error("reading the server's catalogue took too long")]
    Timeout,
}

/// What names mean where nobody looks them up.
pub fn no_names() -> Arc<Catalogue> {
    static NONE: LazyLock<Arc<Catalogue>> = LazyLock::new(|| Arc::new(Catalogue::empty()));
    Arc::clone(&NONE)
}

impl Catalogues {
    /// The catalogue, read anew when there is none or it is old.
    ///
    /// # Errors
    /// Fails when it cannot be read.
    pub async fn get(
        &self,
        tls: &Tls,
        permit: &Permit,
        resource: &Arc<Resource>,
        place: &Place,
        mask_key: &Arc<mask::Key>,
    ) -> Result<Arc<Catalogue>, CatalogueError> {
        let slot = Arc::clone(
            self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(place.clone()).or_default(),
        );
        let mut known = slot.0.lock().await;
        if let Some((catalogue, read)) = &*known
            && read.elapsed() < FRESH
        {
            return Ok(Arc::clone(catalogue));
        }
        let read = tokio::time::timeout(PATIENCE, read(tls, permit, resource, place, mask_key))
            .await
            .map_err(|_| CatalogueError::Timeout)??;
        let catalogue = Arc::new(read);
        *known = Some((Arc::clone(&catalogue), Instant::now()));
        Ok(catalogue)
    }

    /// The next `get` reads anew.
    pub fn forget(&self, place: &Place) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
    }
}

/// Runs the catalogue queries in a session of the gateway's own, through the same state machine that serves
/// jobs; the "job" here is this function.
async fn read(
    tls: &Tls,
    permit: &Permit,
    resource: &Arc<Resource>,
    place: &Place,
    mask_key: &Arc<mask::Key>,
) -> Result<Catalogue, CatalogueError> {
    let login = credential::for_resource(permit, resource)?;
    let stream = connect(permit, resource, place.address, PATIENCE).await?;
    let wants_tls = tls.upstream(resource, place.address).map_err(UpstreamError::from)?.is_some();
    let mut upstream = Pipe::new(stream);
    let mut session = Session::new(Settings::new(BackendKey { pid: 0, secret: [0; 32] }));
    session.job_in().extend_from_slice(&startup_packet());
    let mut login = Some(login);
    let mut queries = CATALOGUE_SQL.iter();
    let mut results: Vec<Vec<Row>> = Vec::with_capacity(CATALOGUE_SQL.len());
    let mut rows = Vec::<Row>::new();
    let mut cells = 0;
    let mut asked = false;
    loop {
        let step = session.step();
        let mut events = session.events();
        while let Some(event) = events.next() {
            match event {
                Event::Row { row, .. } => {
                    let row: Vec<_> = row
                        .cells()
                        .map(|cell| cell.map(|c| String::from_utf8_lossy(c).into_owned()))
                        .collect();
                    cells += row.len();
                    if cells > MAX_CELLS {
                        return Err(CatalogueError::Read("the database has too many columns".to_owned()));
                    }
                    rows.push(row);
                }
                Event::Finished { outcome: Outcome::Done { .. }, .. } => {
                    results.push(std::mem::take(&mut rows));
                    asked = false;
                }
                Event::Finished { outcome: Outcome::Failed { sqlstate }, .. } => {
                    return Err(CatalogueError::Read(format!("the server answers with SQLSTATE {sqlstate}")));
                }
                Event::Finished { .. } => return Err(CatalogueError::Read("a query did not run".to_owned())),
                _ => {}
            }
        }
        drop(events);
        // Nobody reads what the session tells its "job".
        let told = session.job_out().len();
        session.job_out().advance(told);
        match step {
            Step::Need => {}
            Step::Login => {
                let Some(login) = login.take() else {
                    return Err(CatalogueError::Read("asked to log in twice".to_owned()));
                };
                session.login(Login {
                    password: Some(login.password_bytes()),
                    user: login.user,
                    database: place.database.clone(),
                    tls: wants_tls,
                    settings: vec![("search_path".to_owned(), search_path(&resource.search_path))],
                    epoch: 0,
                    open: false,
                    origins: Arc::new(NoOrigins),
                    mask_key: Arc::clone(mask_key),
                });
                continue;
            }
            Step::StartTls(Leg::Upstream) => {
                legs::flush(&mut upstream, session.up_out())
                    .await
                    .map_err(|e| CatalogueError::Read(e.to_string()))?;
                let Some(stream) = upstream.take_stream() else {
                    return Err(CatalogueError::Read("connection lost".to_owned()));
                };
                let (stream, end_point) = start_tls(tls, resource, place.address, stream).await?;
                upstream = Pipe::new(stream);
                session.tls_started(Leg::Upstream, end_point);
                continue;
            }
            Step::Ask => {
                session.allow(Arc::new(Decision {
                    statements: vec![Allowed {
                        allow: permit.own_catalogue_query(),
                        rules: Vec::new(),
                        defines: None,
                        refers: None,
                        copy: None,
                    }],
                    epoch: 0,
                    open: false,
                    context: Arc::new(()),
                }));
                continue;
            }
            Step::Close(reason) => return Err(CatalogueError::Read(reason.to_string())),
            Step::StartTls(Leg::Job) | Step::Cancel => {
                return Err(CatalogueError::Read("the session went astray".to_owned()));
            }
        }
        if session.job_key().is_some() && session.idle() && !asked {
            match queries.next() {
                Some(sql) => {
                    session.job_in().extend_from_slice(&query_packet(sql));
                    asked = true;
                    continue;
                }
                None => break,
            }
        }
        match poll_fn(|cx| poll_upstream(cx, &mut session, &mut upstream)).await {
            Moved::Bytes => {}
            Moved::Eof(_) => session.upstream_gone(),
            Moved::Failed(_, error) => return Err(CatalogueError::Read(error.to_string())),
        }
    }
    Catalogue::build(&results).map_err(|e| CatalogueError::Read(e.to_string()))
}

/// StartupMessage 3.0 of the session's stand-in job.
fn startup_packet() -> Vec<u8> {
    packet(None, b"\0\x03\0\0user\0gateway\0application_name\0gateway\0\0")
}

fn query_packet(sql: &str) -> Vec<u8> {
    let mut body = sql.as_bytes().to_vec();
    body.push(0);
    packet(Some(b'Q'), &body)
}

fn packet(kind: Option<u8>, body: &[u8]) -> Vec<u8> {
    let mut packet: Vec<u8> = kind.into_iter().collect();
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}
