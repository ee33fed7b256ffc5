//! Asks a host where paths lead to: by SFTP, on a channel beside the one of a program that does not tell.

use std::time::Duration;

use policy::{FileRequest, Permit};
use russh::{Channel, ChannelMsg, client::Msg};
use tokio::time::timeout;

use super::upstream::Upstream;

/// How long the host may take to answer, and with how many bytes.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER: usize = 64 * 1024;

const VERSION: u8 = 2;
const REALPATH: u8 = 16;
const STATUS: u8 = 101;
const NAME: u8 = 104;

/// A question that is open.
pub(super) struct Lookup {
    channel: Channel<Msg>,
    said: Vec<u8>,
    id: u32,
}

/// The host does not answer as it should: nothing more is known of its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silent;

impl Lookup {
    /// `None`: the host has no SFTP.
    pub(super) async fn open(upstream: &Upstream, permit: &Permit) -> Option<Self> {
        let opening = async {
            let channel = upstream.session(permit).await.ok()?;
            channel.request_subsystem(true, "sftp").await.ok()?;
            let mut lookup = Self { channel, said: Vec::new(), id: 0 };
            // SSH_FXP_INIT, version 3.
            lookup.channel.data_bytes([0, 0, 0, 5, 1, 0, 0, 0, 3].to_vec()).await.ok()?;
            (lookup.packet().await.ok()?.first() == Some(&VERSION)).then_some(lookup)
        };
        timeout(PATIENCE, opening).await.ok().flatten()
    }

    /// The real path of `path`; `None`: it has none.
    ///
    /// # Errors
    /// When the host does not answer.
    pub(super) async fn real(&mut self, path: &str) -> Result<Option<String>, Silent> {
        self.id = self.id.wrapping_add(1);
        let text = u32::try_from(path.len()).map_err(|_| Silent)?;
        let mut packet = vec![REALPATH];
        packet.extend_from_slice(&self.id.to_be_bytes());
        packet.extend_from_slice(&text.to_be_bytes());
        packet.extend_from_slice(path.as_bytes());
        let length = u32::try_from(packet.len()).map_err(|_| Silent)?;
        let asked = [length.to_be_bytes().as_slice(), &packet].concat();
        let asking = async {
            self.channel.data_bytes(asked).await.map_err(|_| Silent)?;
            let answer = self.packet().await?;
            answered(&answer, self.id)
        };
        timeout(PATIENCE, asking).await.map_err(|_| Silent)?
    }

    /// The request as the host has its path, links behind. What is not there yet is where its folder leads to; what has no folder either
    /// stays as it is written.
    ///
    /// # Errors
    /// As for [`real`](Self::real).
    pub(super) async fn led(&mut self, file: FileRequest) -> Result<FileRequest, Silent> {
        let path = match self.real(&file.path).await? {
            Some(path) => path,
            None => {
                let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
                match self.real(if folder.is_empty() { "/" } else { folder }).await? {
                    Some(folder) => format!("{}/{name}", folder.trim_end_matches('/')),
                    None => return Ok(file),
                }
            }
        };
        Ok(FileRequest { path, ..file })
    }

    /// The next packet, without its length.
    async fn packet(&mut self) -> Result<Vec<u8>, Silent> {
        loop {
            if let Some(packet) = whole(&mut self.said) {
                return Ok(packet);
            }
            if self.said.len() > ANSWER {
                return Err(Silent);
            }
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => self.said.extend_from_slice(&data),
                Some(ChannelMsg::Failure | ChannelMsg::Close) | None => return Err(Silent),
                Some(_) => {}
            }
        }
    }
}

/// Takes a whole packet from what was said.
fn whole(said: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (length, rest) = said.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let packet = rest.get(..length)?.to_vec();
    said.drain(..length + 4);
    Some(packet)
}

/// SSH_FXP_NAME with one name, or SSH_FXP_STATUS.
fn answered(packet: &[u8], id: u32) -> Result<Option<String>, Silent> {
    let (kind, rest) = packet.split_first().ok_or(Silent)?;
    let rest = rest.strip_prefix(&id.to_be_bytes()).ok_or(Silent)?;
    match *kind {
        STATUS => Ok(None),
        NAME => {
            let rest = rest.strip_prefix(&[0, 0, 0, 1]).ok_or(Silent)?;
            let (length, text) = rest.split_first_chunk::<4>().ok_or(Silent)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Silent)?;
            let path = std::str::from_utf8(text.get(..length).ok_or(Silent)?).map_err(|_| Silent)?;
            let plain = path.starts_with('/') && !path.split('/').any(|name| name == "..");
            if plain { Ok(Some(path.to_owned())) } else { Err(Silent) }
        }
        _ => Err(Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_a_whole_and_for_their_question() {
        let name: &[u8] = &[104, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, b'/', b'h', b'/', b'x', 0, 0, 0, 0];
        assert_eq!(answered(name, 1), Ok(Some("/h/x".into())));
        assert_eq!(answered(name, 2), Err(Silent), "another's");
        for cut in 0..17 {
            assert_eq!(answered(&name[..cut], 1), Err(Silent), "{cut}");
        }
        assert_eq!(answered(&[101, 0, 0, 0, 1, 0, 0, 0, 2], 1), Ok(None));
        let up: &[u8] = &[104, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 4, b'/', b'.', b'.', b'/'];
        assert_eq!(answered(up, 1), Err(Silent));
        let mut said = vec![0, 0, 0, 2, 7, 8, 0, 0, 0];
        assert_eq!(whole(&mut said), Some(vec![7, 8]));
        assert_eq!((whole(&mut said), said.len()), (None, 3));
        assert_eq!(whole(&mut vec![0xff; 64]), None);
    }
}
