//! Answers without their secrets.
//!
//! A [`Filter`] takes the body of an answer in pieces and passes it on: JSON documents one after another (an object, a list, a
//! table, the events of a watch), or text. Of a list one element is held at a time, of a watch one event. What is not hidden keeps its
//! bytes.
//!
//! Hidden are the values of Secrets, wherever one stands (by itself, in lists, in events and tables, in annotations that hold a copy
//! of it); in every other string, whatever the detectors find. What is no JSON is withheld: nobody can tell what it shows.

mod copies;
mod document;
mod says;
mod split;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use mask::{Detectors, Stream};
use policy::{Kubernetes, ShownSecrets};

use self::{document::Document, split::Splitter};
use super::accept::{self, Passage};

/// Largest element of a list, event of a watch or single object, in bytes. etcd holds 1.5 MB for one.
pub const ITEM_MAX: usize = 16 * 1024 * 1024;

/// An answer that is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    #[error("the answer is no JSON, so its secrets cannot be found")]
    Syntax,
    #[error("the answer has an object of more than {ITEM_MAX} bytes")]
    Large,
    #[error("the answer ends in the middle")]
    Unfinished,
    #[error("the answer is in a format that is not read here")]
    Format,
}

/// What of answers is hidden.
#[derive(Debug, Clone)]
pub struct Masks {
    /// Secrets whose members are not hidden.
    pub shown: ShownSecrets,
    /// Looked for in every string.
    pub detectors: Arc<Detectors>,
}

impl Masks {
    /// There are Secrets whose members are hidden.
    fn hide_secrets(&self) -> bool {
        !self.shown.all()
    }
}

/// Passes one answer on.
#[derive(Debug)]
pub struct Filter {
    way: Way,
}

#[derive(Debug)]
enum Way {
    Untouched,
    Json { splitter: Splitter, document: Document },
    Text(Stream),
}

impl Filter {
    /// For the answer to this request, with this Content-Type.
    ///
    /// # Errors
    /// When it comes in a format that cannot be masked.
    pub fn new(action: &Kubernetes, content_type: Option<&str>, masks: &Masks) -> Result<Self, Withheld> {
        let way = match accept::passage(action, content_type) {
            Passage::Untouched => Way::Untouched,
            Passage::Withheld => return Err(Withheld::Format),
            Passage::Text => Way::Text(Stream::new(Arc::clone(&masks.detectors))),
            Passage::Json => {
                let of_secrets = action.resource().is_some_and(|resource| resource.is_core("secrets"));
                Way::Json {
                    splitter: Splitter::default(),
                    document: Document::new(masks.clone(), of_secrets),
                }
            }
        };
        Ok(Self { way })
    }

    /// Takes the next piece and appends what can be shown to `out`.
    ///
    /// # Errors
    /// When it cannot be told what it shows; nothing more is to be shown then.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Withheld> {
        match &mut self.way {
            Way::Untouched => out.extend_from_slice(piece),
            Way::Text(stream) => stream.push(piece, out),
            Way::Json { splitter, document } => splitter.push(piece, |part| document.show(part, out))?,
        }
        Ok(())
    }

    /// Shows what text holds back, when nothing has come for a while.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        if let Way::Text(stream) = &mut self.way {
            stream.release(out);
        }
    }

    /// The answer is over.
    ///
    /// # Errors
    /// When it ends in the middle of a document.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Withheld> {
        match &mut self.way {
            Way::Untouched => Ok(()),
            Way::Text(stream) => {
                stream.release(out);
                Ok(())
            }
            Way::Json { splitter, document } => splitter.finish(|part| document.show(part, out)),
        }
    }

    /// Values and findings that were hidden.
    pub fn hidden(&self) -> u64 {
        match &self.way {
            Way::Untouched => 0,
            Way::Text(stream) => stream.hidden(),
            Way::Json { document, .. } => document.hidden(),
        }
    }
}
