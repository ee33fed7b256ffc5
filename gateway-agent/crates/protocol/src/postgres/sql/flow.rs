//! Which base columns a value derives from.

/// A set of columns, by their index in the statement's facts; `unknown` when it may derive from more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flow {
    ids: Vec<u32>,
    pub(super) unknown: bool,
}

impl Flow {
    pub(super) const fn none() -> Self {
        Self { ids: Vec::new(), unknown: false }
    }

    pub(super) const fn unknown() -> Self {
        Self { ids: Vec::new(), unknown: true }
    }

    pub(super) fn one(id: u32) -> Self {
        Self { ids: vec![id], unknown: false }
    }

    /// In ascending order, each once.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn insert(&mut self, id: u32) {
        if let Err(at) = self.ids.binary_search(&id) {
            self.ids.insert(at, id);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.unknown |= other.unknown;
        match other.ids.as_slice() {
            [] => {}
            [one] => self.insert(*one),
            many if self.ids.is_empty() => self.ids.extend_from_slice(many),
            many => {
                self.ids.extend_from_slice(many);
                self.ids.sort_unstable();
                self.ids.dedup();
            }
        }
    }

    pub(super) fn with(mut self, other: &Self) -> Self {
        self.add(other);
        self
    }
}
