//! What the server still has to answer, in the order in which it will.

use std::sync::Arc;

use super::{
    Decision,
    session::names::{Change, Portal, Statement},
};

/// Something was sent upstream, or refused in its place; its reply is outstanding.
#[derive(Debug)]
pub(crate) enum Expect {
    /// A simple query: results of its statements, then ReadyForQuery.
    Query(Run),
    /// ParseComplete, BindComplete or CloseComplete, by its tag, and how to undo what was assumed.
    Named(u8, Change),
    /// ParameterDescription, then RowDescription or NoData. `None` when SQL made the statement.
    DescribeStatement(Option<Statement>),
    /// RowDescription or NoData. When hidden, the gateway asked and the job must not see it. `None` when SQL made
    /// the portal.
    DescribePortal { portal: Option<Arc<Portal>>, hidden: bool },
    /// Rows or COPY data, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute { portal: Arc<Portal>, run: Run },
    /// A function call: its response, then ReadyForQuery.
    Call(Run),
    /// ReadyForQuery.
    Sync,
    /// The gateway's own answer.
    Refused {
        error: Box<[u8]>,
        /// ReadyForQuery follows.
        ready: bool,
        /// The server was made to fail too, and this replaces its error.
        provoked: bool,
        /// The unnamed statement that is gone with it. Where something before it fails, the server never heard of this.
        gone: Option<Change>,
    },
}

/// One run of an allowed text.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: u64,
    pub(crate) decision: Arc<Decision>,
}

impl Expect {
    /// It ends with a ReadyForQuery, at which the server sends all it has.
    pub(crate) fn ends(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Call(_) | Self::Sync)
    }
}
