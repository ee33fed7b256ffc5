//! Byte queues on both sides of the state machine.

/// Bytes to be written to one leg.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    head: usize,
}

impl Output {
    /// What waits to be written.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    /// The first `written` bytes of [`Output::bytes`] were written.
    pub fn advance(&mut self, written: usize) {
        self.head = self.head.saturating_add(written).min(self.bytes.len());
        if self.head == self.bytes.len() {
            self.head = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// To append to.
    pub(crate) fn vec(&mut self) -> &mut Vec<u8> {
        // A writer that is slower than the session would otherwise drag along what is already written.
        if self.head > KEEP && self.head * 2 > self.bytes.len() {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        &mut self.bytes
    }
}

/// Bytes read from one leg.
#[derive(Debug, Default)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    head: usize,
}

impl Input {
    /// To append to: whatever was consumed is dropped first.
    pub(crate) fn vec(&mut self) -> &mut Vec<u8> {
        if self.head > 0 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        &mut self.bytes
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(self.head..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.head = self.head.saturating_add(count).min(self.bytes.len());
        if self.head == self.bytes.len() {
            self.head = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    /// Gives an empty buffer's memory back.
    pub(crate) fn relax(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

impl Output {
    /// Gives an empty buffer's memory back.
    pub(crate) fn relax(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

/// An empty buffer larger than this is given back.
const KEEP: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_hands_out_what_is_not_yet_written() {
        let mut output = Output::default();
        output.vec().extend_from_slice(b"hello");
        output.advance(2);
        assert_eq!(output.bytes(), b"llo");
        output.vec().extend_from_slice(b"!");
        assert_eq!(output.bytes(), b"llo!");
        output.advance(99);
        assert!(output.is_empty());
    }

    #[test]
    fn output_drops_written_bytes_when_they_pile_up() {
        let mut output = Output::default();
        output.vec().resize(KEEP * 2, 1);
        output.advance(KEEP * 2 - 3);
        output.vec().push(2);
        assert_eq!(output.bytes(), [1, 1, 1, 2]);
        assert_eq!(output.head, 0);
    }

    #[test]
    fn input_keeps_what_is_not_consumed() {
        let mut input = Input::default();
        input.vec().extend_from_slice(b"abcdef");
        input.consume(4);
        assert_eq!(input.bytes(), b"ef");
        input.vec().extend_from_slice(b"gh");
        assert_eq!(input.bytes(), b"efgh");
        assert_eq!(input.len(), 4);
    }
}
