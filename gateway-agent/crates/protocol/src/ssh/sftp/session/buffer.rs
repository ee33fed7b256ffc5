//! What one side sent, and the packets in it.

use super::SftpError;
use crate::ssh::sftp::packet::PACKET_MAX;

/// Bytes that came in.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// What is before it was taken.
    start: usize,
}

impl Buffer {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        // Moved to the front seldom enough to cost nothing.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Takes a whole packet, its length included.
    pub(super) fn packet(
        &mut self,
        error: fn(&'static str) -> SftpError,
    ) -> Result<Option<Vec<u8>>, SftpError> {
        let rest = self.bytes.get(self.start..).unwrap_or_default();
        let Some((head, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length == 0 || length > PACKET_MAX {
            return Err(error("a packet without contents, or longer than 256 KiB"));
        }
        let Some(packet) = rest.get(..length + 4) else { return Ok(None) };
        let packet = packet.to_vec();
        self.start += packet.len();
        Ok(Some(packet))
    }
}
