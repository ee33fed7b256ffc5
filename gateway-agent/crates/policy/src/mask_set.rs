//! The masks that apply to one subject on one resource.

use std::sync::{Arc, OnceLock};

use mask::{Detector, Detectors, Partial, Transform};

use crate::{
    action::{Column, Lineage, Outputs},
    http::matcher::HttpMask,
    kubernetes,
    pattern::ColumnPattern,
    ssh::matcher::FileMask,
    verdict::{ColumnMasks, OutputMask, OutputMasks},
};

#[derive(Debug)]
pub(crate) struct MaskSet {
    /// `None` when no column is masked.
    pub(crate) columns: Option<Arc<ColumnMasks>>,
    pub(crate) detectors: Option<Arc<Detectors>>,
    /// What `detectors` is made of.
    parts: Vec<(Detector, Option<Partial>)>,
    /// The same with keys and tokens, made when it is first asked for.
    with_secrets: OnceLock<Arc<Detectors>>,
    /// Masks of files' contents.
    pub(crate) files: Vec<FileMask>,
    /// Masks of responses.
    pub(crate) http: Vec<HttpMask>,
    /// In the order of the policy.
    pub(crate) ids: Arc<[Arc<str>]>,
}

impl MaskSet {
    pub(crate) fn new(
        columns: Vec<(ColumnPattern, Transform)>,
        parts: Vec<(Detector, Option<Partial>)>,
        ids: Vec<Arc<str>>,
        files: Vec<FileMask>,
        http: Vec<HttpMask>,
    ) -> Self {
        Self {
            ids: ids.into(),
            columns: (!columns.is_empty()).then(|| Arc::new(ColumnMasks { columns: columns.into() })),
            detectors: (!parts.is_empty()).then(|| Arc::new(Detectors::new(&parts))),
            parts,
            with_secrets: OnceLock::new(),
            files,
            http,
        }
    }

    /// The detectors for answers of API servers.
    pub(crate) fn with_secrets(&self) -> Arc<Detectors> {
        Arc::clone(self.with_secrets.get_or_init(|| kubernetes::evaluate::detectors(&self.parts)))
    }

    /// The detectors for output in which these files' contents may be, too.
    pub(crate) fn detectors_with<'m>(
        &self,
        files: impl Iterator<Item = &'m FileMask>,
    ) -> Option<Arc<Detectors>> {
        self.detectors_and(files.flat_map(|mask| mask.detectors.iter().copied()).collect())
    }

    /// The detectors that are for everything, and more.
    pub(crate) fn detectors_and(&self, more: Vec<(Detector, Option<Partial>)>) -> Option<Arc<Detectors>> {
        if more.is_empty() {
            return self.detectors.clone();
        }
        Some(Arc::new(Detectors::new(&self.parts.iter().copied().chain(more).collect::<Vec<_>>())))
    }

    /// The mask of whatever the column could be: a relation that is not told is any relation.
    pub(crate) fn of(&self, column: &Column) -> Option<Transform> {
        self.columns.as_ref()?.find(column.schema.as_deref(), column.relation.as_deref(), &column.name)
    }

    /// What has to happen to each result column.
    pub(crate) fn outputs(&self, outputs: &Outputs, opaque: bool) -> OutputMasks {
        if self.columns.is_none() {
            return OutputMasks::None;
        }
        match outputs {
            Outputs::None => OutputMasks::None,
            Outputs::Unknown => OutputMasks::Unknown,
            Outputs::Columns(_) if opaque => OutputMasks::Unknown,
            Outputs::Columns(columns) => {
                let masks: Vec<_> =
                    columns.iter().map(|lineage| self.of_lineage(lineage).map(OutputMask::new)).collect();
                match masks.iter().any(Option::is_some) {
                    true => OutputMasks::Columns(masks),
                    false => OutputMasks::None,
                }
            }
        }
    }

    fn of_lineage(&self, lineage: &Lineage) -> Option<Transform> {
        match lineage {
            Lineage::Unknown => Some(Transform::Redact),
            Lineage::Known(columns) => {
                columns.iter().filter_map(|column| self.of(column)).reduce(Transform::stronger)
            }
        }
    }
}
