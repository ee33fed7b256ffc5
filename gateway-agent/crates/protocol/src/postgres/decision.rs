//! What the driver answers to an Ask, and what masking needs to know.

use std::{any::Any, sync::Arc};

use policy::{Allow, Gates, Named, OwnPermit};

/// An allow for one query text: everything in it was allowed.
#[derive(Debug)]
pub struct Decision {
    /// One entry per statement of the text, in order; none for an empty text. A result that belongs to no
    /// entry ends the session.
    pub statements: Vec<Allowed>,
    /// The [`Session::set_epoch`](super::Session::set_epoch) this was decided under. An answer of another epoch
    /// does not count: the statement is asked again.
    pub epoch: u64,
    /// Everything is allowed, also what could not be read: there may be more or fewer results than `statements`,
    /// those beyond the last fall under the last, and running it may change how the server reads what comes next.
    /// A session that ran one of these takes no other kind any more.
    pub open: bool,
    /// The driver's own; comes back in events through the decision, never looked at.
    pub context: Arc<dyn Any + Send + Sync>,
}

impl Decision {
    /// What allows the result at `index` of the text.
    pub(crate) fn statement(&self, index: usize) -> Option<&Allowed> {
        let known = self.statements.get(index);
        if self.open { known.or_else(|| self.statements.last()) } else { known }
    }
}

/// One allowed statement.
#[derive(Debug)]
pub struct Allowed {
    pub allow: Allow,
    /// The rules that allowed it, for the message when a limit is hit.
    pub rules: Vec<Arc<str>>,
    /// `policy::Statement::defines`: a name that SQL itself gives to a prepared statement or cursor. From then
    /// on the protocol cannot use that name, which keeps the two name spaces apart.
    pub defines: Option<Named>,
    /// `policy::Statement::refers`: it means what that name means when it runs, so every Execute asks again.
    pub refers: Option<Named>,
    /// Of a COPY … TO STDOUT: what its data looks like. `None` there means unknown: where anything would have
    /// to be masked, the data is withheld and the job gets an error.
    pub copy: Option<CopyData>,
    /// It evaluates nothing: what an error about a missing object names is in its own text, and comes from no value.
    pub inert: bool,
    /// What the server can be asked the cost of. Only told where a limit of the policy needs it.
    pub plan: Plannable,
}

/// A statement of a text that people have to agree to first: the limits that it will meet then.
#[derive(Debug)]
pub struct Beforehand {
    pub gates: Arc<Gates>,
    pub plan: Plannable,
    pub permit: OwnPermit,
}

/// Of an allowed statement: what EXPLAIN can be put before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Plannable {
    /// There is nothing to plan: SET, BEGIN, CREATE TABLE, FETCH from a cursor that was planned when it was declared.
    #[default]
    Nothing,
    /// This text, with the parameters of the statement.
    Text(Arc<str>),
    /// It may cost anything, and why.
    Unknown(&'static str),
}

/// The data of COPY … TO STDOUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyData {
    pub options: CopyOptions,
    /// Of each column the oid of its type, where it is a table's column as it stands. COPY does not tell it itself: of
    /// others what is masked is text in the textual formats, and becomes NULL in the binary one.
    pub types: Vec<Option<u32>>,
}

impl From<CopyOptions> for CopyData {
    /// Of columns that are not known.
    fn from(options: CopyOptions) -> Self {
        Self { options, types: Vec::new() }
    }
}

/// The format of COPY … TO STDOUT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyOptions {
    /// `FORMAT text`, the default.
    Text(CopyText),
    /// `FORMAT csv`.
    Csv { text: CopyText, quote: u8, escape: u8 },
    /// `FORMAT binary`.
    Binary,
}

/// What the two textual COPY formats share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyText {
    pub delimiter: u8,
    /// The marker of NULL.
    pub null: Vec<u8>,
    /// The first line holds column names.
    pub header: bool,
}

impl CopyOptions {
    /// `FORMAT text` with nothing else said.
    pub fn text() -> Self {
        Self::Text(CopyText { delimiter: b'\t', null: b"\\N".to_vec(), header: false })
    }

    /// `FORMAT csv` with nothing else said.
    pub fn csv() -> Self {
        Self::Csv {
            text: CopyText { delimiter: b',', null: Vec::new(), header: false },
            quote: b'"',
            escape: b'"',
        }
    }
}

/// Names behind the (table oid, attribute number) pairs in row descriptions.
pub trait Origins {
    /// Calls `with` with the column, and with each that it may show; not at all when the catalogue does not know the pair.
    fn origin(&self, table_oid: u32, attnum: i16, with: &mut dyn FnMut(Origin<'_>));
}

/// Knows no column: everything that depends on a column's origin is masked.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoOrigins;

impl Origins for NoOrigins {
    fn origin(&self, _: u32, _: i16, _: &mut dyn FnMut(Origin<'_>)) {}
}

/// A column as the catalogue knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// `None` = any.
    pub schema: Option<&'a str>,
    pub relation: Option<&'a str>,
    pub column: &'a str,
    /// The origins named show everything that the column does: it is a table's, or a view's whose definition is
    /// understood. Only then they prove that a column of unknown lineage needs no mask.
    pub known: bool,
}

/// A refusal in the words that the client sees. `sqlstate` is five letters or digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl Refusal {
    /// SQLSTATE of a refusal by policy.
    pub const DENIED: &'static str = "42501";
    /// SQLSTATE of what is no SQL: the server would have said so, too, and failed the transaction.
    pub const SYNTAX: &'static str = "42601";

    /// `denied by policy rule <rule>: <reason>`, SQLSTATE 42501.
    pub fn policy(rule: &str, reason: &str, hint: Option<String>) -> Self {
        Self {
            sqlstate: Self::DENIED,
            message: format!("denied by policy rule {rule}: {reason}"),
            detail: None,
            hint,
        }
    }
}
