//! A client, a server that is a tree of paths, and the machine between them.

use std::collections::HashMap;

use policy::{FileRequest, SshRequest};
use proptest::prelude::*;

use super::{
    packet::{self, put_string, write},
    *,
};
use crate::ssh::testing::{allow, allowed};

/// The machine, and a server with symbolic links, by path, that answers whatever it is sent.
struct World {
    sftp: Sftp,
    links: HashMap<&'static str, &'static str>,
    contents: Vec<u8>,
    /// Requests that the server saw, the gateway's own REALPATHs aside.
    seen: Vec<(u8, u32)>,
    asked: Vec<String>,
    replies: Vec<(u8, u32, Vec<u8>)>,
}

fn request(kind: u8, id: u32, parts: &[&[u8]], tail: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, kind, |out| {
        out.extend_from_slice(&id.to_be_bytes());
        parts.iter().for_each(|part| put_string(out, part));
        out.extend_from_slice(tail);
    });
    out
}

fn open(id: u32, path: &str, flags: u8) -> Vec<u8> {
    request(3, id, &[path.as_bytes()], &[0, 0, 0, flags, 0, 0, 0, 0])
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            sftp: Sftp::default(),
            links: HashMap::from([("/home/x/up", "/etc/shadow"), ("/srv/app/dir", "/etc")]),
            contents: b"mail a@example.com now".to_vec(),
            seen: Vec::new(),
            asked: Vec::new(),
            replies: Vec::new(),
        };
        world.sftp.job_in(&[0, 0, 0, 5, 1, 0, 0, 0, 6]);
        world.run(|_| true);
        assert_eq!(world.replies.pop().unwrap().0, packet::VERSION);
        world
    }

    fn send(&mut self, bytes: &[u8], may: impl Fn(&FileRequest) -> bool) {
        self.sftp.job_in(bytes);
        self.run(may);
    }

    /// Everything goes back and forth until nothing moves.
    fn run(&mut self, may: impl Fn(&FileRequest) -> bool) {
        loop {
            match self.sftp.step().unwrap() {
                SftpStep::Ask => {
                    let file = self.sftp.pending().unwrap().clone();
                    let target = file.target.as_deref().map(|to| format!(" {to}")).unwrap_or_default();
                    self.asked.push(format!("{} {}{target}", file.operation.name(), file.path));
                    match may(&file) {
                        true => self.sftp.allow(&self.verdict(&file)),
                        false => self.sftp.deny("r", "no", "ask"),
                    }
                }
                SftpStep::Need => {
                    let out = std::mem::take(self.sftp.upstream_out());
                    if out.is_empty() {
                        break;
                    }
                    let mut rest = out.as_slice();
                    while let Some((head, tail)) = rest.split_first_chunk::<4>() {
                        let (packet, more) = tail.split_at(u32::from_be_bytes(*head) as usize);
                        self.answer(packet);
                        rest = more;
                    }
                }
            }
        }
        let out = std::mem::take(self.sftp.job_out());
        let mut rest = out.as_slice();
        while let Some((head, tail)) = rest.split_first_chunk::<4>() {
            let (packet, more) = tail.split_at(u32::from_be_bytes(*head) as usize);
            let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
            self.replies.push((packet[0], id, packet[5..].to_vec()));
            rest = more;
        }
    }

    fn verdict(&self, file: &FileRequest) -> policy::Allow {
        let mask = "masks: [{ id: m, files: [/srv/masked/**], detectors: [email], transform: redact }]\n";
        match file.path.starts_with("/srv/masked") {
            true => allow(mask, SshRequest::File(file.clone())),
            false => allowed(),
        }
    }

    fn answer(&mut self, packet: &[u8]) {
        let mut reply = Vec::new();
        if packet[0] == packet::INIT {
            write(&mut reply, packet::VERSION, |out| {
                out.extend_from_slice(&3u32.to_be_bytes());
                for name in [&b"posix-rename@openssh.com"[..], b"vendor@example"] {
                    put_string(out, name);
                    put_string(out, b"1");
                }
            });
            return self.sftp.upstream_in(&reply);
        }
        let id = u32::from_be_bytes(packet[1..5].try_into().unwrap());
        let own = packet[0] == packet::REALPATH && id > 0xffff_0000;
        if !own {
            self.seen.push((packet[0], id));
        }
        let body = packet::request(packet[0], &packet[5..]).unwrap();
        match body {
            packet::Request::Realpath { path }
            | packet::Request::Readlink { path }
            | packet::Request::ExpandPath { path } => {
                let real = self.real(std::str::from_utf8(path).unwrap());
                write(&mut reply, packet::NAME, |out| {
                    out.extend_from_slice(&id.to_be_bytes());
                    out.extend_from_slice(&1u32.to_be_bytes());
                    put_string(out, real.as_bytes());
                    put_string(out, b"");
                    out.extend_from_slice(&[0; 4]);
                });
            }
            packet::Request::Open { path, .. } | packet::Request::Opendir { path } => {
                write(&mut reply, packet::HANDLE, |out| {
                    out.extend_from_slice(&id.to_be_bytes());
                    put_string(out, &[b"h", path].concat());
                });
            }
            packet::Request::Read { offset, length, .. } => {
                let from = (offset as usize).min(self.contents.len());
                let piece = &self.contents[from..self.contents.len().min(from + length as usize)];
                match piece {
                    [] => packet::status(&mut reply, id, packet::EOF, ""),
                    piece => write(&mut reply, packet::DATA, |out| {
                        out.extend_from_slice(&id.to_be_bytes());
                        put_string(out, piece);
                    }),
                }
            }
            packet::Request::Stat { .. } | packet::Request::Fstat { .. } => {
                write(&mut reply, packet::ATTRS, |out| {
                    out.extend_from_slice(&id.to_be_bytes());
                    out.extend_from_slice(&[0; 4]);
                });
            }
            _ => packet::status(&mut reply, id, packet::OK, ""),
        }
        self.sftp.upstream_in(&reply);
    }

    /// Follows links and `..`, as a kernel does.
    fn real(&self, path: &str) -> String {
        let from = if path.starts_with('/') { String::new() } else { "/home/x".to_owned() };
        let mut real = from;
        for name in path.split('/') {
            match name {
                "" | "." => {}
                ".." => real.truncate(real.rfind('/').unwrap_or(0)),
                name => {
                    real.push('/');
                    real.push_str(name);
                    if let Some(to) = self.links.get(real.as_str()) {
                        real = (*to).to_owned();
                    }
                }
            }
        }
        if real.is_empty() { "/".to_owned() } else { real }
    }
}

#[test]
fn paths_are_decided_as_the_server_has_them() {
    for (packet, expected) in [
        (open(1, "a/../b", 1), "read /home/x/b"),
        (open(1, "up", 1), "read /etc/shadow"),
        (open(1, "/srv/app/dir/../passwd", 1), "read /passwd"),
        (open(1, "/srv//app/./dir/passwd", 0x1a), "write /etc/passwd"),
        (request(13, 1, &[b"up"], b""), "remove /home/x/up"),
        (request(13, 1, &[b"/srv/app/dir/x"], b""), "remove /etc/x"),
        (request(17, 1, &[b"up"], b""), "stat /etc/shadow"),
        (request(7, 1, &[b"up"], b""), "stat /home/x/up"),
        (request(11, 1, &[b"/srv/app/dir"], b""), "list /etc"),
        (request(18, 1, &[b"a", b"/srv/app/dir/b"], b""), "rename /home/x/a /etc/b"),
        (request(20, 1, &[b"../../etc/shadow", b"/srv/app/x"], b""), "symlink /srv/app/x /etc/shadow"),
        (request(200, 1, &[b"hardlink@openssh.com", b"up", b"/srv/x"], b""), "symlink /srv/x /etc/shadow"),
        (request(200, 1, &[b"expand-path@openssh.com", b"~/up"], b""), "stat /etc/shadow"),
        (request(200, 1, &[b"lsetstat@openssh.com", b"up"], &[0; 4]), "setstat /home/x/up"),
        // A slash behind a link, and the kernel follows it.
        (request(200, 1, &[b"lsetstat@openssh.com", b"up/"], &[0; 4]), "setstat /etc/shadow"),
        (request(200, 1, &[b"lsetstat@openssh.com", b"/srv/app/dir/."], &[0; 4]), "setstat /etc"),
        (request(7, 1, &[b"/srv/app/dir//"], b""), "stat /etc"),
        (request(18, 1, &[b"/srv/app/dir/", b"/srv/app/dir/./"], b""), "rename /etc /etc"),
        (request(14, 1, &[b"d"], &[0; 4]), "write /home/x/d"),
        (request(19, 1, &[b"up"], b""), "stat /home/x/up"),
    ] {
        let mut world = World::new();
        world.send(&packet, |_| false);
        assert_eq!(world.asked, [expected]);
        assert!(world.seen.is_empty(), "{expected}: nothing reaches the server");
        let (kind, id, body) = world.replies.pop().unwrap();
        assert_eq!((kind, id, body[..4].to_vec()), (packet::STATUS, 1, vec![0, 0, 0, 3]));
        assert!(String::from_utf8_lossy(&body).contains("no [r]; ask"));
        world.send(&packet, |_| true);
        assert_eq!(world.seen.len(), 1, "{expected}: what is allowed does");
        assert_eq!(world.replies.last().unwrap().1, 1);
    }
}

#[test]
fn handles_are_good_for_what_they_were_opened_for() {
    let mut world = World::new();
    world.send(&open(1, "/srv/a", 1), |_| true);
    let read = request(5, 2, &[b"h/srv/a"], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 64]);
    let mut tail = vec![0; 8];
    put_string(&mut tail, b"data");
    let written = request(6, 3, &[b"h/srv/a"], &tail);
    world.send(&[read, written, request(6, 4, &[b"nobody's"], &tail)].concat(), |_| true);
    let kinds: Vec<_> = world.replies.iter().map(|of| (of.0, of.1)).collect();
    // What is refused is answered at once, by its own id.
    assert_eq!(kinds.len(), 4);
    assert!(
        kinds.contains(&(packet::DATA, 2))
            && kinds.contains(&(packet::STATUS, 3))
            && kinds.contains(&(packet::STATUS, 4))
    );
    assert!(!world.seen.iter().any(|of| of.0 == 6), "written by a handle for reading");
    world.send(&request(4, 5, &[b"h/srv/a"], b""), |_| true);
    let events: Vec<_> = world.sftp.events().collect();
    let Some(FileEvent::Closed(totals)) = events.last() else { panic!("{events:?}") };
    assert_eq!((totals.path.as_str(), totals.read.bytes), ("/srv/a", 22));
    assert!(totals.read.sha256.is_some());
    world.send(&request(8, 6, &[b"h/srv/a"], b""), |_| true);
    assert_eq!(world.replies.last().unwrap().2[..4], [0, 0, 0, 4], "closed");
}

#[test]
fn unknown_extensions_are_neither_shown_nor_passed() {
    let mut sftp = Sftp::default();
    sftp.job_in(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
    let _ = sftp.step().unwrap();
    let mut version = Vec::new();
    write(&mut version, packet::VERSION, |out| {
        out.extend_from_slice(&3u32.to_be_bytes());
        for name in [&b"vendor@example"[..], b"limits@openssh.com"] {
            put_string(out, name);
            put_string(out, b"1");
        }
    });
    sftp.upstream_in(&version);
    let _ = sftp.step().unwrap();
    let shown = String::from_utf8_lossy(sftp.job_out()).into_owned();
    assert!(shown.contains("limits@openssh.com") && !shown.contains("vendor"));
    let mut world = World::new();
    world.send(&request(200, 9, &[b"vendor@example", b"x"], b""), |_| true);
    assert_eq!(world.replies.pop().unwrap().2[..4], [0, 0, 0, 8]);
    assert!(world.seen.is_empty());
}

#[test]
fn masked_contents_keep_their_length() {
    let mut world = World::new();
    world.send(&open(1, "/srv/masked/a", 1), |_| true);
    assert_eq!(world.replies.pop().unwrap().0, packet::HANDLE);
    for (id, offset, expected) in [(2, 0, "mail ************* now"), (3, 18, " now")] {
        let mut tail = vec![0, 0, 0, 0, 0, 0, 0, offset];
        tail.extend_from_slice(&[0, 0, 0, 64]);
        world.send(&request(5, id, &[b"h/srv/masked/a"], &tail), |_| true);
        assert_eq!(&world.replies.pop().unwrap().2[4..], expected.as_bytes());
    }
    world.send(&open(4, "/srv/masked/b", 3), |_| true);
    assert_eq!(world.replies.pop().unwrap().2[..4], [0, 0, 0, 3], "not for writing as well");
}

#[test]
fn whoever_breaks_the_protocol_is_cut_off() {
    let started = || {
        let world = World::new();
        world.sftp
    };
    for bytes in [&[0, 0, 0, 0][..], &[0xff, 0, 0, 0], &[0, 0, 0, 1, 3]] {
        let mut sftp = started();
        sftp.job_in(bytes);
        assert!(matches!(sftp.step(), Err(SftpError::Job(_))), "{bytes:?}");
    }
    for bytes in [&[0, 0, 0, 0][..], &[0xff, 0, 0, 0], &[0, 0, 0, 5, 101, 0, 0, 0, 7]] {
        let mut sftp = started();
        sftp.upstream_in(bytes);
        assert!(matches!(sftp.step(), Err(SftpError::Upstream(_))), "{bytes:?}");
    }
    let mut world = World::new();
    world.send(&request(3, 1, &[b"/a\0b"], &[0, 0, 0, 1, 0, 0, 0, 0]), |_| true);
    world.send(&request(3, 2, &[b"/\xff"], &[0, 0, 0, 1, 0, 0, 0, 0]), |_| true);
    assert!(world.asked.is_empty() && world.seen.is_empty());
    world.send(&request(18, 3, &[b"a"], b""), |_| true);
    assert_eq!(world.replies.pop().unwrap().2[..4], [0, 0, 0, 5], "a bad message leaves the session usable");
}

#[test]
fn paths_and_handles_are_of_bounded_length() {
    let mut world = World::new();
    let long = vec![b'a'; 5000];
    for packet in [open(1, std::str::from_utf8(&long).unwrap(), 1), request(18, 2, &[b"a", &long], b"")] {
        world.send(&packet, |_| true);
        assert_eq!(world.replies.pop().unwrap().2[..4], [0, 0, 0, 3]);
    }
    assert!(world.asked.is_empty() && world.seen.is_empty());
    // The server's handle is the path here.
    let path = format!("/{}", "b/".repeat(200));
    world.sftp.job_in(&open(3, &path, 1));
    let mut steps = Vec::new();
    for _ in 0..4 {
        match world.sftp.step() {
            Ok(SftpStep::Ask) => world.sftp.allow(&allowed()),
            Ok(SftpStep::Need) => {
                for packet in split(&std::mem::take(world.sftp.upstream_out())) {
                    world.answer(&packet);
                }
            }
            Err(error) => steps.push(error),
        }
    }
    assert!(matches!(steps.first(), Some(SftpError::Upstream(why)) if why.contains("256")), "{steps:?}");
}

/// Packets without their lengths.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while let Some((head, tail)) = bytes.split_first_chunk::<4>() {
        let (packet, more) = tail.split_at(u32::from_be_bytes(*head) as usize);
        packets.push(packet.to_vec());
        bytes = more;
    }
    packets
}

#[test]
fn contents_that_are_searched_share_their_room() {
    let mut world = World::new();
    world.sftp = Sftp::new(std::sync::Arc::new(Room::new(50)));
    world.sftp.job_in(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
    world.run(|_| true);
    world.replies.clear();
    // Each has 22 bytes.
    for (id, kind) in [(1, packet::HANDLE), (2, packet::HANDLE), (3, packet::STATUS)] {
        world.send(&open(id, &format!("/srv/masked/{id}"), 1), |_| true);
        assert_eq!(world.replies.pop().unwrap().0, kind, "{id}");
    }
    world.send(&request(4, 4, &[b"h/srv/masked/1"], b""), |_| true);
    world.send(&open(5, "/srv/masked/5", 1), |_| true);
    assert_eq!(world.replies.pop().unwrap().0, packet::HANDLE, "there is room again");
}

proptest! {
    /// Whatever a client sends, and however it is cut: nothing that was refused reaches the server.
    #[test]
    fn nothing_refused_gets_through(
        packets in prop::collection::vec((0u8..24, 0u32..4, prop::collection::vec(any::<u8>(), 0..24)), 0..12),
        cut in 1usize..7,
    ) {
        let mut world = World::new();
        let mut bytes = Vec::new();
        for (kind, id, body) in &packets {
            write(&mut bytes, *kind, |out| {
                out.extend_from_slice(&id.to_be_bytes());
                put_string(out, body);
            });
        }
        for piece in bytes.chunks(cut) {
            world.sftp.job_in(piece);
            match world.sftp.step() {
                Ok(SftpStep::Ask) => world.sftp.deny("r", "no", "ask"),
                Ok(SftpStep::Need) => {}
                Err(_) => return Ok(()),
            }
        }
        let out = std::mem::take(world.sftp.upstream_out());
        let kinds: Vec<u8> = {
            let (mut rest, mut kinds) = (out.as_slice(), Vec::new());
            while let Some((head, tail)) = rest.split_first_chunk::<4>() {
                let (packet, more) = tail.split_at(u32::from_be_bytes(*head) as usize);
                kinds.push(packet[0]);
                rest = more;
            }
            kinds
        };
        prop_assert!(kinds.iter().all(|kind| *kind == packet::REALPATH), "{kinds:?}");
    }
}
