//! What names mean on each database: read with the gateway's own credential, before a session is served, and
//! followed while one is open.
//!
//! Reading everything is dear, so a mark of it is compared first: PostgreSQL's snapshot tells in one row whether any
//! transaction changed anything at all, and the catalogue's row versions tell whether names did.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use policy::{OwnSql, Permit, Resource};
use protocol::postgres::sql::{CATALOGUE_SQL, Catalogue, Row, STACK};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use super::{
    Tls, UpstreamError,
    own::{OwnConnection, OwnError, Target},
};
use crate::credential::{self, CredentialError};

/// How long a catalogue counts without being compared with the server's, and how often that of an open session is.
pub const FRESH: Duration = Duration::from_secs(2);
/// Where comparing takes long, it is done less often: it may take a fiftieth of the time, but waits no longer than this.
const FRESH_MOST: Duration = Duration::from_secs(30);
const SHARE: u32 = 50;
/// Reading it may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Names;

impl OwnSql for Names {
    const SQL: &'static [&'static str] = CATALOGUE_SQL;
}

/// Back to what sessions resolve names by: reading them leaves it empty, and the connection is used again.
struct Path;

impl OwnSql for Path {
    const SQL: &'static [&'static str] = &["RESET search_path"];
}

struct Marks;

impl OwnSql for Marks {
    const SQL: &'static [&'static str] = &[
        "SELECT pg_catalog.pg_current_snapshot()::text",
        // A row that is changed is a new version by a later transaction, so equal counts and sums mean equal rows.
        // What belongs to temporary relations is left out, as it is in the catalogue.
        "SELECT 'class', count(*)::text, sum(c.xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_class c \
         WHERE c.relpersistence <> 't' \
         UNION ALL SELECT 'attribute', count(*)::text, sum(a.xmin::text::pg_catalog.int8)::text \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         WHERE c.relpersistence <> 't' AND a.attnum > 0 \
         UNION ALL SELECT 'namespace', count(*)::text, sum(xmin::text::pg_catalog.int8)::text \
         FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_' \
         UNION ALL SELECT 'rewrite', count(*)::text, sum(xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_rewrite \
         UNION ALL SELECT 'inherits', count(*)::text, sum(xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_inherits \
         UNION ALL SELECT 'proc', count(*)::text, sum(xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_proc \
         UNION ALL SELECT 'policy', count(*)::text, sum(xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_policy \
         UNION ALL SELECT 'trigger', count(*)::text, sum(xmin::text::pg_catalog.int8)::text FROM pg_catalog.pg_trigger",
    ];
}

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
struct Slot {
    known: AsyncMutex<Known>,
    stays: AtomicUsize,
    /// What is known has to be compared, however short ago that was done.
    doubted: AtomicBool,
}

/// Somebody is at a place. With the last one the gateway's own connection there is closed.
pub struct Stay(Arc<Slot>);

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.stays.fetch_sub(1, Ordering::SeqCst);
        self.0.leave();
    }
}

impl Slot {
    /// Closes the connection that is kept for nobody. Whoever reads meanwhile does so afterwards.
    fn leave(&self) {
        if self.stays.load(Ordering::SeqCst) == 0
            && let Ok(mut known) = self.known.try_lock()
        {
            known.connection = None;
        }
    }
}

#[derive(Default)]
struct Known {
    catalogue: Option<Read>,
    /// Kept while somebody stays there.
    connection: Option<OwnConnection>,
}

struct Read {
    catalogue: Arc<Catalogue>,
    /// The last answers of [`Marks`].
    snapshot: Vec<Row>,
    mark: Vec<Row>,
    compared: Instant,
    /// How long it counts without being compared again.
    fresh: Duration,
}

/// Why names are unknown. Without them nothing can be decided, so nobody is let in.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("reading the server's catalogue: {0}")]
    Own(#[from] OwnError),
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

impl From<UpstreamError> for CatalogueError {
    fn from(error: UpstreamError) -> Self {
        Self::Own(error.into())
    }
}

impl Catalogues {
    /// The catalogue: compared with the server's where it has not been for 2 s (up to 30 s where comparing takes long),
    /// and read anew where it differs.
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
        let slot = self.slot(place);
        let read = Self::read(&slot, Target { tls, resource, place, mask_key }, permit).await;
        slot.leave();
        read
    }

    async fn read(slot: &Slot, to: Target<'_>, permit: &Permit) -> Result<Arc<Catalogue>, CatalogueError> {
        let mut known = slot.known.lock().await;
        // Doubts that come from here on are of what is read now, too.
        if slot.doubted.swap(false, Ordering::SeqCst)
            && let Some(read) = &mut known.catalogue
        {
            read.fresh = Duration::ZERO;
        }
        if let Some(read) = known.catalogue.as_ref().filter(|read| read.compared.elapsed() < read.fresh) {
            return Ok(Arc::clone(&read.catalogue));
        }
        tokio::time::timeout(PATIENCE, known.refresh(to, permit)).await.map_err(|_| {
            // Its state is unknown: an answer may still come.
            CatalogueError::Timeout
        })?
    }

    /// The next `get` compares, however short ago that was done.
    pub fn doubt(&self, place: &Place) {
        self.slot(place).doubted.store(true, Ordering::SeqCst);
    }

    /// Until this is dropped, the connection by which names are read there is kept.
    pub fn stay(&self, place: &Place) -> Stay {
        let slot = self.slot(place);
        slot.stays.fetch_add(1, Ordering::SeqCst);
        Stay(slot)
    }

    fn slot(&self, place: &Place) -> Arc<Slot> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(place.clone()).or_default())
    }
}

impl Known {
    async fn refresh(&mut self, to: Target<'_>, permit: &Permit) -> Result<Arc<Catalogue>, CatalogueError> {
        // Taken out: whatever goes wrong or is dropped half-way, a connection in an unknown state is not used again.
        let kept = self.connection.take();
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => open(to, permit).await?,
        };
        let compared = match self.compare(&mut connection).await {
            // The server may have closed it while nobody looked.
            Err(CatalogueError::Own(error)) if was_kept && !error.is_refusal() => {
                connection = open(to, permit).await?;
                self.compare(&mut connection).await?
            }
            compared => compared?,
        };
        let catalogue = match compared {
            Some(catalogue) => catalogue,
            None => self.read(&mut connection).await?,
        };
        self.connection = Some(connection);
        Ok(catalogue)
    }

    /// The catalogue that is known, if it is still the server's.
    async fn compare(
        &mut self,
        connection: &mut OwnConnection,
    ) -> Result<Option<Arc<Catalogue>>, CatalogueError> {
        let Some(read) = &mut self.catalogue else { return Ok(None) };
        let began = Instant::now();
        let snapshot = connection.run::<Marks>(0, &[], PATIENCE).await?;
        if snapshot != read.snapshot {
            if connection.run::<Marks>(1, &[], PATIENCE).await? != read.mark {
                return Ok(None);
            }
            read.snapshot = snapshot;
        }
        read.fresh = (began.elapsed() * SHARE).clamp(FRESH, FRESH_MOST);
        read.compared = began;
        Ok(Some(Arc::clone(&read.catalogue)))
    }

    async fn read(&mut self, connection: &mut OwnConnection) -> Result<Arc<Catalogue>, CatalogueError> {
        // The marks first: what changes while the rest is read differs from them at the next comparison.
        let compared = Instant::now();
        let snapshot = connection.run::<Marks>(0, &[], PATIENCE).await?;
        let mark = connection.run::<Marks>(1, &[], PATIENCE).await?;
        let mut results = Vec::with_capacity(CATALOGUE_SQL.len());
        for at in 0..CATALOGUE_SQL.len() {
            results.push(connection.run::<Names>(at, &[], PATIENCE).await?);
        }
        connection.run::<Path>(0, &[], PATIENCE).await?;
        let catalogue = Arc::new(build(results).await?);
        let read = Read { catalogue: Arc::clone(&catalogue), snapshot, mark, compared, fresh: FRESH };
        self.catalogue = Some(read);
        Ok(catalogue)
    }
}

async fn open(to: Target<'_>, permit: &Permit) -> Result<OwnConnection, CatalogueError> {
    let login = credential::for_resource(permit, to.resource)?;
    Ok(OwnConnection::open(to, permit.own(), login, &[]).await?)
}

/// Definitions of views and functions nest as deep as their authors like: a thread of its own has the stack for that.
async fn build(results: Vec<Vec<Row>>) -> Result<Catalogue, CatalogueError> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("catalogue".to_owned()).stack_size(STACK);
    thread
        .spawn(move || {
            // Whoever asked may have lost patience.
            let _ = tell.send(Catalogue::build(&results));
        })
        .map_err(|e| CatalogueError::Read(format!("no thread to understand it on: {e}")))?;
    let built = told.await.map_err(|_| CatalogueError::Read("understanding it failed".to_owned()))?;
    built.map_err(|e| CatalogueError::Read(e.to_string()))
}
