//! Connections of the gateway's own: names, estimates, who blocks whom, roles.
//!
//! The same state machine that serves jobs runs them; its "job" is this module. What they run are the fixed texts of
//! [`policy::OwnSql`] and estimates of allowed statements, each by a permit that is good for that text only.

use std::{future::poll_fn, sync::Arc, time::Duration};

use policy::{Allow, Arg, OwnPermit, OwnQuery, OwnSql, OwnSqlError, Permit, Resource};
use protocol::{
    Leg, Step,
    postgres::{
        Allowed, BackendKey, Decision, Event, Login as SessionLogin, NoOrigins, Outcome, Plannable, Session,
        Settings, sql::Row,
    },
};

use super::{Place, Tls, UpstreamError, connect, search_path, start_tls};
use crate::{
    credential::Login,
    session::legs::{self, Moved, Pipe, poll_upstream},
};

/// Cells read at most of one answer: a server cannot make the gateway hold more.
const MAX_CELLS: usize = 8_000_000;
/// Bytes read at most of one answer.
const MAX_BYTES: usize = 512 << 20;
/// Connecting and logging in may take this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a statement of the gateway's own has no answer.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Text(#[from] OwnSqlError),
    #[error("the server answers with SQLSTATE {0}")]
    Refused(String),
    #[error("{0}")]
    Lost(String),
    #[error("the answer is larger than the gateway takes")]
    TooMuch,
    #[error("no answer in time")]
    Timeout,
}

impl OwnError {
    /// The connection still serves: only this statement failed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Text(_))
    }
}

/// Where such a connection goes.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub tls: &'a Tls,
    pub resource: &'a Arc<Resource>,
    pub place: &'a Place,
    pub mask_key: &'a Arc<mask::Key>,
}

/// A logged-in connection.
pub struct OwnConnection {
    session: Session,
    pipe: Pipe,
    permit: OwnPermit,
}

impl OwnConnection {
    /// Connects and logs in. `settings` go into the startup packet, after `search_path`.
    ///
    /// # Errors
    /// Fails when the server cannot be reached, does not let the gateway in, or takes longer than 10 s.
    pub async fn open(
        to: Target<'_>,
        permit: OwnPermit,
        login: Login,
        settings: &[(&str, &str)],
    ) -> Result<Self, OwnError> {
        tokio::time::timeout(PATIENCE, Self::log_in(to, permit, login, settings))
            .await
            .map_err(|_| OwnError::Timeout)?
    }

    async fn log_in(
        to: Target<'_>,
        permit: OwnPermit,
        login: Login,
        settings: &[(&str, &str)],
    ) -> Result<Self, OwnError> {
        let stream = connect(permit.opens(), to.resource, to.place.address, PATIENCE).await?;
        let wants_tls =
            to.tls.upstream(to.resource, to.place.address).map_err(UpstreamError::from)?.is_some();
        let mut session = Session::new(Settings::new(BackendKey { pid: 0, secret: [0; 32] }));
        session.job_in().extend_from_slice(&startup_packet());
        let mut own = Self { session, pipe: Pipe::new(stream), permit };
        let path = search_path(to.resource.search_path());
        let settings = std::iter::once(("search_path", path.as_str())).chain(settings.iter().copied());
        let mut login = Some(SessionLogin {
            password: Some(login.password_bytes()),
            user: login.user,
            database: to.place.database.clone(),
            tls: wants_tls,
            settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            epoch: 0,
            open: false,
            own: true,
            origins: Arc::new(NoOrigins),
            mask_key: Arc::clone(to.mask_key),
        });
        loop {
            let step = own.session.step();
            own.forget();
            match step {
                Step::Need if own.ready() => return Ok(own),
                Step::Need => own.turn().await?,
                Step::Login => match login.take() {
                    Some(login) => own.session.login(login),
                    None => return Err(astray()),
                },
                Step::StartTls(Leg::Upstream) => {
                    legs::flush(&mut own.pipe, own.session.up_out()).await.map_err(lost)?;
                    let stream = own.pipe.take_stream().ok_or_else(astray)?;
                    let (stream, end_point) =
                        start_tls(to.tls, to.resource, to.place.address, stream).await?;
                    own.pipe.restore(stream);
                    own.session.tls_started(Leg::Upstream, end_point);
                }
                Step::Close(reason) => return Err(OwnError::Lost(reason.to_string())),
                Step::Ask | Step::StartTls(Leg::Job) | Step::Cancel => return Err(astray()),
            }
        }
    }

    /// Runs statement `at` of a fixed list and returns its rows.
    ///
    /// # Errors
    /// Fails when the server refuses it, or after `patience`; see [`OwnError::is_refusal`].
    pub async fn run<Q: OwnSql>(
        &mut self,
        at: usize,
        args: &[Arg<'_>],
        patience: Duration,
    ) -> Result<Vec<Row>, OwnError> {
        let (sql, allow) = self.permit.query::<Q>(at, args)?.into_parts();
        self.session.job_in().extend_from_slice(&packet(b'Q', &[sql.as_bytes(), b"\0"]));
        self.answer(allow, patience).await
    }

    /// The planner's estimate of an allowed statement, as JSON. `types` and `params` are the middles of the client's own
    /// Parse and Bind messages, empty for none.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn estimate(
        &mut self,
        permit: &Permit,
        sql: &str,
        types: &[u8],
        params: &[u8],
        patience: Duration,
    ) -> Result<String, OwnError> {
        let query: OwnQuery = permit.estimate(sql);
        let (sql, allow) = query.into_parts();
        let none: &[u8] = &[0, 0];
        let or_none = |bytes: &'_ [u8]| if bytes.is_empty() { none.to_vec() } else { bytes.to_vec() };
        let params = if params.is_empty() { vec![0, 0, 0, 0] } else { params.to_vec() };
        let input = self.session.job_in();
        input.extend_from_slice(&packet(b'P', &[b"\0", sql.as_bytes(), b"\0", &or_none(types)]));
        // Unnamed portal and statement; the answer comes as text.
        input.extend_from_slice(&packet(b'B', &[b"\0\0", &params, none]));
        input.extend_from_slice(&packet(b'E', &[b"\0", &[0; 4]]));
        input.extend_from_slice(&packet(b'S', &[]));
        let rows = self.answer(allow, patience).await?;
        let mut text = String::new();
        for row in rows {
            text.push_str(row.into_iter().next().flatten().as_deref().unwrap_or_default());
            text.push('\n');
        }
        Ok(text)
    }

    async fn answer(&mut self, allow: Allow, patience: Duration) -> Result<Vec<Row>, OwnError> {
        tokio::time::timeout(patience, self.drive(allow)).await.map_err(|_| OwnError::Timeout)?
    }

    async fn drive(&mut self, allow: Allow) -> Result<Vec<Row>, OwnError> {
        let mut allow = Some(allow);
        let mut answer = Answer::default();
        loop {
            let step = self.session.step();
            answer.take(&mut self.session)?;
            self.forget();
            match step {
                Step::Need if allow.is_none() && self.ready() => return answer.result(),
                Step::Need => self.turn().await?,
                Step::Ask => {
                    let Some(allow) = allow.take() else { return Err(astray()) };
                    self.session.allow(Arc::new(Decision {
                        statements: vec![Allowed {
                            allow,
                            rules: Vec::new(),
                            defines: None,
                            refers: None,
                            copy: None,
                            inert: false,
                            plan: Plannable::Nothing,
                        }],
                        epoch: 0,
                        open: false,
                        context: Arc::new(()),
                    }));
                }
                Step::Close(reason) => return Err(OwnError::Lost(reason.to_string())),
                Step::Login | Step::StartTls(_) | Step::Cancel => return Err(astray()),
            }
        }
    }

    /// Logged in, and everything is answered.
    fn ready(&self) -> bool {
        self.session.job_key().is_some() && self.session.idle()
    }

    async fn turn(&mut self) -> Result<(), OwnError> {
        let Self { session, pipe, .. } = self;
        match poll_fn(|cx| poll_upstream(cx, session, pipe)).await {
            Moved::Bytes => Ok(()),
            Moved::Eof(_) => {
                self.session.upstream_gone();
                Ok(())
            }
            Moved::Failed(_, error) => Err(lost(error)),
        }
    }

    /// Nobody reads what the session tells its "job".
    fn forget(&mut self) {
        let told = self.session.job_out().len();
        self.session.job_out().advance(told);
    }
}

/// What came so far.
#[derive(Default)]
struct Answer {
    rows: Vec<Row>,
    cells: usize,
    bytes: usize,
    failed: Option<String>,
}

impl Answer {
    fn take(&mut self, session: &mut Session) -> Result<(), OwnError> {
        let mut events = session.events();
        while let Some(event) = events.next() {
            match event {
                Event::Row { row, .. } => {
                    let row: Row = row
                        .cells()
                        .map(|cell| cell.map(|c| String::from_utf8_lossy(c).into_owned()))
                        .collect();
                    self.cells += row.len();
                    self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
                    if self.cells > MAX_CELLS || self.bytes > MAX_BYTES {
                        return Err(OwnError::TooMuch);
                    }
                    self.rows.push(row);
                }
                Event::Finished { outcome: Outcome::Failed { sqlstate }, .. } => {
                    self.failed = Some(sqlstate.to_owned());
                }
                // An error before it ran: in Parse or Bind.
                Event::Finished { outcome: Outcome::Skipped, .. } if self.failed.is_none() => {
                    self.failed = Some("of the statement itself".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn result(self) -> Result<Vec<Row>, OwnError> {
        match self.failed {
            None => Ok(self.rows),
            Some(sqlstate) => Err(OwnError::Refused(sqlstate)),
        }
    }
}

fn astray() -> OwnError {
    OwnError::Lost("the session went astray".to_owned())
}

fn lost(error: std::io::Error) -> OwnError {
    OwnError::Lost(error.to_string())
}

/// StartupMessage 3.0 of the session's stand-in job.
fn startup_packet() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0gateway\0application_name\0gateway\0\0";
    let mut packet = length(body.len()).to_vec();
    packet.extend_from_slice(body);
    packet
}

fn packet(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut packet = vec![kind];
    packet.extend_from_slice(&length(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| packet.extend_from_slice(part));
    packet
}

fn length(body: usize) -> [u8; 4] {
    u32::try_from(body + 4).unwrap_or(u32::MAX).to_be_bytes()
}
