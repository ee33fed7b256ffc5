//! What to do with each column of a result.

use std::sync::Arc;

use mask::{Detectors, Transform};
use policy::{Obligations, OutputMasks, Recording};

use super::kind::Kind;
use crate::postgres::{
    Origins,
    message::{I16List, Malformed, row_description},
};

/// What to do with the cells of one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Pass,
    /// Looked at by the detectors.
    Detect(Kind),
    /// Replaced.
    Mask(Transform, Kind),
    Null,
}

/// What to do with one result.
#[derive(Debug)]
pub(crate) struct Plan {
    /// One per column; `None` when the columns are not known.
    cells: Option<Vec<Cell>>,
    /// Without known columns: what lineage says of the positions.
    blind: OutputMasks,
    pub(crate) detectors: Option<Arc<Detectors>>,
    pub(crate) record: bool,
}

/// Result formats that a Bind asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Formats {
    All(i16),
    Each(Vec<i16>),
}

impl Formats {
    pub(crate) fn new(list: I16List<'_>) -> Self {
        match (list.len(), list.get(0)) {
            (1, Some(format)) => Self::All(format),
            (0, _) => Self::All(0),
            (count, _) => Self::Each((0..count).filter_map(|at| list.get(at)).collect()),
        }
    }

    fn binary(&self, at: usize) -> bool {
        match self {
            Self::All(format) => *format != 0,
            // The server refuses a list of another length than the columns; binary is the safe reading.
            Self::Each(formats) => formats.get(at) != Some(&0),
        }
    }
}

/// What is known of a result's columns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// A RowDescription body with true formats.
    Result(&'a [u8]),
    /// The RowDescription body of a statement, and the formats its portal was bound with.
    Statement(&'a [u8], &'a Formats),
    /// Nothing.
    Unknown,
}

/// Nothing in the obligations needs to look at rows. (Limits are counted anyway.)
pub(crate) fn untouched(obligations: &Obligations) -> bool {
    matches!(obligations.outputs, OutputMasks::None)
        && obligations.columns.is_none()
        && obligations.detectors.is_none()
        && obligations.record != Recording::Results
}

impl Plan {
    pub(crate) fn new(
        obligations: &Obligations,
        source: Source<'_>,
        origins: &dyn Origins,
    ) -> Result<Self, Malformed> {
        let mut plan = Self {
            cells: None,
            blind: OutputMasks::None,
            detectors: obligations.detectors.clone(),
            record: obligations.record == Recording::Results,
        };
        let (body, formats) = match source {
            Source::Result(body) => (body, None),
            Source::Statement(body, formats) => (body, Some(formats)),
            Source::Unknown => {
                // Without a row description the server names no origins, so column masks cannot be told from
                // what needs none.
                plan.blind = match &obligations.columns {
                    Some(_) => OutputMasks::Unknown,
                    None => obligations.outputs.clone(),
                };
                return Ok(plan);
            }
        };
        let mut columns = Vec::new();
        row_description::columns(body, |column| columns.push(column))?;
        let outputs = match &obligations.outputs {
            // Lineage and server disagree on what the result is: believe neither.
            OutputMasks::Columns(masks) if masks.len() != columns.len() => None,
            outputs => Some(outputs),
        };
        let mut cells = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            let binary = formats.map_or(column.binary, |formats| formats.binary(at));
            let kind = Kind::of(column.type_oid, binary);
            let (mut by_origin, mut known): (Option<Transform>, _) = (None, false);
            if column.table != 0 {
                origins.origin(column.table, column.attnum, &mut |origin| {
                    known = origin.known;
                    let masks = obligations.columns.as_ref();
                    let found =
                        masks.and_then(|masks| masks.find(origin.schema, origin.relation, origin.column));
                    by_origin = match (by_origin, found) {
                        (Some(one), Some(other)) => Some(one.stronger(other)),
                        (one, other) => one.or(other),
                    };
                });
            }
            let by_position = match outputs {
                Some(OutputMasks::None) => None,
                Some(OutputMasks::Columns(masks)) => {
                    let named = column.table != 0 && column.attnum > 0;
                    masks.get(at).copied().flatten().map(|mask| mask.transform(named))
                }
                Some(OutputMasks::Unknown) if known => None,
                Some(OutputMasks::Unknown) | None => Some(Transform::Redact),
            };
            let transform = match (by_position, by_origin) {
                (Some(one), Some(other)) => Some(one.stronger(other)),
                (one, other) => one.or(other),
            };
            cells.push(match (transform, kind) {
                (Some(transform), Kind::Text | Kind::Json | Kind::Jsonb | Kind::Typed(..)) => {
                    Cell::Mask(transform, kind)
                }
                (Some(_), Kind::Container | Kind::Opaque) => Cell::Null,
                (None, Kind::Opaque | Kind::Typed(..)) => Cell::Pass,
                (None, _) if obligations.detectors.is_none() => Cell::Pass,
                (None, kind) => Cell::Detect(kind),
            });
        }
        plan.cells = Some(cells);
        Ok(plan)
    }

    /// Rows go through as they are.
    pub(crate) fn passes(&self) -> bool {
        let cells = self.cells.as_ref();
        !self.record && cells.is_some_and(|cells| cells.iter().all(|cell| *cell == Cell::Pass))
    }

    /// What to do with column `at` of `count`; `None` when a row has another number of cells than was described.
    pub(crate) fn cell(&self, at: usize, count: usize) -> Option<Cell> {
        if let Some(cells) = &self.cells {
            return cells.get(at).copied().filter(|_| cells.len() == count);
        }
        let masked = match &self.blind {
            OutputMasks::None => false,
            OutputMasks::Columns(masks) => masks.len() != count || masks.get(at).copied().flatten().is_some(),
            OutputMasks::Unknown => true,
        };
        Some(match masked {
            true => Cell::Null,
            false if self.detectors.is_some() => Cell::Detect(Kind::Container),
            false => Cell::Pass,
        })
    }
}
