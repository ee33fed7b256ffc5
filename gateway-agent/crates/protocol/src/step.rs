//! What a session asks of its driver.

/// One side of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The client inside the job.
    Job,
    /// The server that the gateway logged in to.
    Upstream,
}

/// What the driver has to do next. Before acting on any step but [`Step::Ask`], write out both outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Everything that could be done is done: write the outputs, read, call again.
    Need,
    /// Write out that leg's output, do the TLS handshake on it, then say `tls_started`.
    StartTls(Leg),
    /// The client said who it wants to be: decide the connection, connect, then `login` or `refuse`.
    Login,
    /// A statement waits: look at `pending`, then `allow`, `deny` or `defer`. Said once per statement.
    Ask,
    /// This connection only asks to cancel what runs on another one: look at `cancel_key`, act, close.
    Cancel,
    /// Write out the outputs and close both legs.
    Close(CloseReason),
}

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said goodbye.
    #[error("the client ended the session")]
    Ended,
    /// The client broke the protocol, or asked for what the gateway does not speak. It was told.
    #[error("the client broke the protocol: {0}")]
    Job(&'static str),
    /// The server broke the protocol, or went out of step with what was sent. Nothing more is relayed.
    #[error("the server broke the protocol: {0}")]
    Upstream(&'static str),
    /// The server did not let the gateway in. The words are the server's, for the operator only; the client
    /// was told the SQLSTATE and nothing else.
    #[error("the server refused the gateway's login: {sqlstate} {message}")]
    LoginFailed { sqlstate: String, message: String },
    /// The gateway itself refused or ended it, by `refuse` or `terminate`.
    #[error("ended by the gateway")]
    Refused,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    UpstreamGone,
}
