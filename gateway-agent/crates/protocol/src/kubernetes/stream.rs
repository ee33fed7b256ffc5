//! Streams of pods over WebSocket (RFC 6455): the subprotocols `v4.channel.k8s.io` and `v5.channel.k8s.io` and their elders, in which
//! the first byte of a message says which channel the rest is of.
//!
//! What a job sends passes as it is, once its frames have been read. What a pod sends is written anew, in frames of its own: standard
//! output and error, and the status, are searched by detectors. Extensions are never agreed on, so that frames hold what they say.

use std::sync::Arc;

use mask::{Detectors, Stream};

/// Subprotocols that are let through, the best first. Others have their channels in Base64, or are a tunnel for another protocol.
pub const PROTOCOLS: &[&str] =
    &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Longest status, in bytes: it is held until it is over.
const STATUS: usize = 64 * 1024;
/// Longest payload of a control frame (RFC 6455 5.5).
const CONTROL: u64 = 125;

/// What a stream is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// A process: channels 0 to 4 are standard input, output and error, the status and the terminal's size.
    Process,
    /// Ports: channels 2n and 2n + 1 are data and errors of the nth.
    Ports,
}

/// A stream that is no WebSocket, or not of these channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadStream {
    #[error("a frame that WebSocket does not have")]
    Frame,
    #[error("a frame of an extension that was not agreed on")]
    Extension,
    #[error("a channel that the stream does not have")]
    Channel,
    #[error("a status of more than {STATUS} bytes")]
    Long,
}

/// Bytes of one channel, as they were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    pub channel: u8,
    pub data: &'a [u8],
}

/// One stream, both ways.
#[derive(Debug)]
pub struct PodFrames {
    kind: StreamKind,
    job: Reader,
    pod: Reader,
    output: [Stream; 2],
    status: Vec<u8>,
    detectors: Arc<Detectors>,
    hidden: u64,
}

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// In version 5 the end of a channel is a message.
const CLOSE: u8 = 255;

impl PodFrames {
    pub fn new(kind: StreamKind, detectors: &Arc<Detectors>) -> Self {
        let stream = || Stream::new(Arc::clone(detectors));
        Self {
            kind,
            job: Reader::new(true),
            pod: Reader::new(false),
            output: [stream(), stream()],
            status: Vec::new(),
            detectors: Arc::clone(detectors),
            hidden: 0,
        }
    }

    /// What the job sends: appends to `out` what goes on to the pod, and tells what was in it.
    ///
    /// # Errors
    /// When it is no stream of this kind; nothing more may pass.
    pub fn from_job(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut seen: impl FnMut(Seen<'_>),
    ) -> Result<(), BadStream> {
        let process = self.kind == StreamKind::Process;
        self.job.push(bytes, |piece| {
            if let Piece::Data { channel, data, .. } = piece {
                if process && !matches!(channel, STDIN | RESIZE | CLOSE) {
                    return Err(BadStream::Channel);
                }
                seen(Seen { channel, data });
            }
            Ok(())
        })?;
        out.extend_from_slice(bytes);
        Ok(())
    }

    /// What the pod sends: appends to `out` what is shown to the job, and tells what that is.
    ///
    /// # Errors
    /// As [`from_job`](Self::from_job).
    pub fn from_pod(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut seen: impl FnMut(Seen<'_>),
    ) -> Result<(), BadStream> {
        let Self { kind, pod, output, status, detectors, hidden, .. } = self;
        pod.push(bytes, |piece| {
            match piece {
                Piece::Control { opcode, payload } => frame(out, opcode, &[], payload),
                Piece::Data { channel, data, .. } if *kind == StreamKind::Ports => {
                    frame(out, BINARY, &[channel], data);
                    seen(Seen { channel, data });
                }
                Piece::Data { channel: channel @ (STDOUT | STDERR), data, .. } => {
                    let mut shown = Vec::new();
                    if let Some(stream) = output.get_mut(usize::from(channel.saturating_sub(STDOUT))) {
                        stream.push(data, &mut shown);
                    }
                    // The first message of a channel is empty: clients wait for it.
                    if !shown.is_empty() || data.is_empty() {
                        frame(out, BINARY, &[channel], &shown);
                        seen(Seen { channel, data: &shown });
                    }
                }
                Piece::Data { channel: ERROR, data, over } => {
                    if status.len().saturating_add(data.len()) > STATUS {
                        return Err(BadStream::Long);
                    }
                    status.extend_from_slice(data);
                    if over {
                        release(output, out, &mut seen);
                        let mut shown = Vec::new();
                        if detectors.rewrite(status, &mut shown) {
                            *hidden = hidden.saturating_add(1);
                        } else {
                            shown.clone_from(status);
                        }
                        status.clear();
                        frame(out, BINARY, &[ERROR], &shown);
                        seen(Seen { channel: ERROR, data: &shown });
                    }
                }
                // Version 5: nothing but an end, which pods do not send.
                Piece::Data { channel: channel @ (STDIN | RESIZE), data, .. } if data.is_empty() => {
                    frame(out, BINARY, &[channel], data);
                }
                Piece::Data { .. } => return Err(BadStream::Channel),
            }
            Ok(())
        })
    }

    /// Shows what is held back: nothing has come for a while, or nothing comes any more.
    pub fn pause(&mut self, out: &mut Vec<u8>, mut seen: impl FnMut(Seen<'_>)) {
        release(&mut self.output, out, &mut seen);
    }

    /// Something is held back.
    pub fn holds(&self) -> bool {
        self.output.iter().any(Stream::holds)
    }

    /// Findings that were hidden.
    pub fn hidden(&self) -> u64 {
        self.output.iter().fold(self.hidden, |sum, stream| sum.saturating_add(stream.hidden()))
    }
}

fn release(output: &mut [Stream; 2], out: &mut Vec<u8>, seen: &mut impl FnMut(Seen<'_>)) {
    for (stream, channel) in output.iter_mut().zip([STDOUT, STDERR]) {
        let mut shown = Vec::new();
        stream.release(&mut shown);
        if !shown.is_empty() {
            frame(out, BINARY, &[channel], &shown);
            seen(Seen { channel, data: &shown });
        }
    }
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// Writes an unmasked frame.
fn frame(out: &mut Vec<u8>, opcode: u8, first: &[u8], payload: &[u8]) {
    let length = first.len().saturating_add(payload.len());
    out.push(0x80 | opcode);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(middle)) => {
            out.push(126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(first);
    out.extend_from_slice(payload);
}

enum Piece<'a> {
    Control {
        opcode: u8,
        payload: &'a [u8],
    },
    /// A part of a message; `over`: it is the last.
    Data {
        channel: u8,
        data: &'a [u8],
        over: bool,
    },
}

/// Reads frames of one side, as they come.
#[derive(Debug)]
struct Reader {
    /// Frames have to be masked, as clients' are.
    masked: bool,
    /// The header that is being read, or the payload of a control frame.
    held: Vec<u8>,
    frame: Option<Frame>,
    /// A message that goes on: its channel, once its first byte came.
    message: Option<Option<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: u8,
    last: bool,
    left: u64,
    key: Option<[u8; 4]>,
    /// Payload bytes before, which say where the key goes on.
    turn: usize,
}

impl Reader {
    fn new(masked: bool) -> Self {
        Self { masked, held: Vec::new(), frame: None, message: None }
    }

    fn push(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Piece<'_>) -> Result<(), BadStream>,
    ) -> Result<(), BadStream> {
        let mut rest = bytes;
        loop {
            match self.frame {
                None => {
                    let Some((byte, after)) = rest.split_first() else { return Ok(()) };
                    rest = after;
                    self.held.push(*byte);
                    if let Some(frame) = self.header()? {
                        self.held.clear();
                        self.frame = Some(frame);
                        if frame.left == 0 {
                            self.payload(frame, &[], &mut take)?;
                        }
                    }
                }
                Some(frame) => {
                    if rest.is_empty() {
                        return Ok(());
                    }
                    let most = usize::try_from(frame.left).unwrap_or(usize::MAX).min(rest.len());
                    let (part, after) = rest.split_at_checked(most).unwrap_or((rest, &[]));
                    rest = after;
                    let mut plain = part.to_vec();
                    if let Some(key) = frame.key {
                        let keys = key.iter().cycle().skip(frame.turn % 4);
                        plain.iter_mut().zip(keys).for_each(|(byte, key)| *byte ^= key);
                    }
                    let part = u64::try_from(most).unwrap_or(u64::MAX);
                    let frame = Frame {
                        left: frame.left.saturating_sub(part),
                        turn: frame.turn.wrapping_add(most),
                        ..frame
                    };
                    self.frame = Some(frame);
                    self.payload(frame, &plain, &mut take)?;
                }
            }
        }
    }

    /// The header, once all of it is there.
    fn header(&self) -> Result<Option<Frame>, BadStream> {
        let [first, second, rest @ ..] = self.held.as_slice() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(BadStream::Extension);
        }
        let (opcode, last) = (first & 0x0f, first & 0x80 != 0);
        let control = opcode >= 8;
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | 8..=10) || (control && !last) {
            return Err(BadStream::Frame);
        }
        if (second & 0x80 != 0) != self.masked {
            return Err(BadStream::Frame);
        }
        let (length, rest) = match second & 0x7f {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (u64::from(short), rest),
        };
        if (control && length > CONTROL) || length > u64::MAX / 2 {
            return Err(BadStream::Frame);
        }
        if !control && (opcode == CONTINUATION) != self.message.is_some() {
            return Err(BadStream::Frame);
        }
        let key = match self.masked {
            true => match rest.first_chunk::<4>() {
                Some(key) => Some(*key),
                None => return Ok(None),
            },
            false => None,
        };
        Ok(Some(Frame { opcode, last, left: length, key, turn: 0 }))
    }

    /// A part of the current frame's payload; `frame.left` comes after it.
    fn payload(
        &mut self,
        frame: Frame,
        part: &[u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), BadStream>,
    ) -> Result<(), BadStream> {
        let over = frame.left == 0;
        if over {
            self.frame = None;
        }
        if frame.opcode >= 8 {
            self.held.extend_from_slice(part);
            if over {
                let payload = std::mem::take(&mut self.held);
                take(Piece::Control { opcode: frame.opcode, payload: &payload })?;
            }
            return Ok(());
        }
        let (channel, data) = match (self.message.flatten(), part.split_first()) {
            (Some(channel), _) => (Some(channel), part),
            (None, Some((channel, data))) => (Some(*channel), data),
            (None, None) => (None, part),
        };
        let last = over && frame.last;
        self.message = if last { None } else { Some(channel) };
        match channel {
            Some(channel) => take(Piece::Data { channel, data, over: last }),
            // A message without a byte is of no channel.
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

    fn frames(kind: StreamKind) -> PodFrames {
        PodFrames::new(kind, &Arc::new(Detectors::compile(&["aws_access_key"]).unwrap()))
    }

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        frame(&mut plain, opcode, &[], payload);
        let head = plain.len() - payload.len();
        plain[1] |= 0x80;
        let key = [1, 2, 3, 4];
        let body: Vec<u8> = payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        [&plain[..head], &key, &body].concat()
    }

    fn unmasked(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, BINARY, &[], payload);
        out
    }

    /// What the job is shown, as channel and text, joined by channel.
    fn shown(stream: &[u8], size: usize) -> Vec<(u8, String)> {
        let mut frames = frames(StreamKind::Process);
        let (mut out, mut all) = (Vec::new(), Vec::<(u8, String)>::new());
        for piece in stream.chunks(size) {
            frames.from_pod(piece, &mut out, |_| {}).unwrap();
        }
        frames.pause(&mut out, |_| {});
        let mut reader = Reader::new(false);
        reader
            .push(&out, |piece| {
                if let Piece::Data { channel, data, .. } = piece {
                    let text = String::from_utf8(data.to_vec()).unwrap();
                    match all.iter_mut().find(|(known, _)| *known == channel) {
                        Some((_, known)) => known.push_str(&text),
                        None => all.push((channel, text)),
                    }
                }
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn what_a_pod_prints_is_masked_wherever_it_is_cut() {
        let (a, b) = KEY.split_at(7);
        let mut stream = unmasked(b"\x01");
        stream.extend(unmasked(format!("\x01one {a}").as_bytes()));
        frame(&mut stream, 9, &[], b"ping");
        stream.extend(unmasked(b"\x02error\n"));
        stream.extend(unmasked(format!("\x01{b} two\n").as_bytes()));
        // A fragmented message, and a long one.
        stream.extend([0x02, 3, 1, b'x', b'y', 0x80, 2, b'z', b'\n']);
        stream.extend(unmasked(&[&b"\x01"[..], &b"0123456789\n".repeat(8000)].concat()));
        stream.extend(unmasked(format!("\x03{{\"status\":\"Failure\",\"message\":\"{KEY}\"}}").as_bytes()));
        for size in [1, 3, 7, 64, stream.len()] {
            let all = shown(&stream, size);
            let of = |channel: u8| all.iter().find(|(known, _)| *known == channel).unwrap().1.clone();
            assert!(of(1).starts_with("one [redacted:aws_access_key] two\nxyz\n0123"), "{}", &of(1)[..60]);
            assert_eq!(of(1).len(), "one [redacted:aws_access_key] two\nxyz\n".len() + 88_000);
            assert_eq!(of(2), "error\n");
            assert_eq!(of(3), r#"{"status":"Failure","message":"[redacted:aws_access_key]"}"#);
        }
    }

    #[test]
    fn what_a_job_types_passes_and_is_seen() {
        let mut frames = frames(StreamKind::Process);
        let stream = [
            masked(BINARY, b"\x00ls -l\n"),
            masked(9, b"x"),
            masked(TEXT, b"\x04{}"),
            masked(BINARY, &[255, 0]),
        ]
        .concat();
        let (mut out, mut seen) = (Vec::new(), Vec::new());
        for piece in stream.chunks(3) {
            frames.from_job(piece, &mut out, |of| seen.extend_from_slice(of.data)).unwrap();
        }
        assert_eq!(out, stream);
        assert_eq!(seen, b"ls -l\n{}\0");
    }

    #[test]
    fn what_is_no_stream_ends() {
        let job = |bytes: &[u8]| frames(StreamKind::Process).from_job(bytes, &mut Vec::new(), |_| {});
        let pod = |bytes: &[u8]| frames(StreamKind::Process).from_pod(bytes, &mut Vec::new(), |_| {});
        assert_eq!(job(&unmasked(b"\x00x")), Err(BadStream::Frame));
        assert_eq!(pod(&masked(BINARY, b"\x01x")), Err(BadStream::Frame));
        assert_eq!(job(&masked(BINARY, b"\x01x")), Err(BadStream::Channel));
        assert_eq!(pod(&unmasked(b"\x07x")), Err(BadStream::Channel));
        assert_eq!(pod(&[0xc2, 1, 1]), Err(BadStream::Extension));
        assert_eq!(pod(&[0x83, 1, 1]), Err(BadStream::Frame));
        assert_eq!(pod(&[0x80, 1, 1]), Err(BadStream::Frame));
        assert_eq!(pod(&[0x09, 1, 1]), Err(BadStream::Frame));
        assert_eq!(pod(&[0x89, 126, 1, 0]), Err(BadStream::Frame));
        assert_eq!(pod(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]), Err(BadStream::Frame));
        let long = unmasked(&[&b"\x03"[..], &[b'x'; STATUS + 1]].concat());
        assert_eq!(pod(&long), Err(BadStream::Long));
        // Ports have channels of their own.
        let mut out = Vec::new();
        frames(StreamKind::Ports).from_pod(&unmasked(b"\x07x"), &mut out, |_| {}).unwrap();
        assert_eq!(out, unmasked(b"\x07x"));
    }
}
