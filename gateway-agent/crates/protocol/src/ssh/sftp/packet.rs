//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), requests and replies, checked to the last byte.

/// Longest packet in bytes, without its length: what OpenSSH takes.
pub(super) const PACKET_MAX: usize = 256 * 1024;

pub(super) const INIT: u8 = 1;
pub(super) const VERSION: u8 = 2;
pub(super) const REALPATH: u8 = 16;
pub(super) const READ: u8 = 5;
pub(super) const STATUS: u8 = 101;
pub(super) const HANDLE: u8 = 102;
pub(super) const DATA: u8 = 103;
pub(super) const NAME: u8 = 104;
pub(super) const ATTRS: u8 = 105;
pub(super) const EXTENDED_REPLY: u8 = 201;

pub(super) const OK: u32 = 0;
pub(super) const EOF: u32 = 1;
pub(super) const PERMISSION_DENIED: u32 = 3;
pub(super) const FAILURE: u32 = 4;
pub(super) const BAD_MESSAGE: u32 = 5;
pub(super) const OP_UNSUPPORTED: u32 = 8;

/// It is not what the draft says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Flags of OPEN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenFlags {
    pub(super) read: bool,
    /// It writes, creates, truncates or appends.
    pub(super) write: bool,
}

/// What a client asks for. Paths and handles are as they were sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request<'p> {
    Open {
        path: &'p [u8],
        flags: OpenFlags,
    },
    Close {
        handle: &'p [u8],
    },
    Read {
        handle: &'p [u8],
        offset: u64,
        length: u32,
    },
    Write {
        handle: &'p [u8],
        offset: u64,
        data: &'p [u8],
    },
    Stat {
        path: &'p [u8],
        follow: bool,
    },
    Fstat {
        handle: &'p [u8],
    },
    /// `sizes`: it is cut off or grows, which changes contents.
    Setstat {
        path: &'p [u8],
        follow: bool,
        sizes: bool,
    },
    /// `only_sizes`: nothing else changes.
    Fsetstat {
        handle: &'p [u8],
        sizes: bool,
        only_sizes: bool,
    },
    Opendir {
        path: &'p [u8],
    },
    Readdir {
        handle: &'p [u8],
    },
    Remove {
        path: &'p [u8],
    },
    Mkdir {
        path: &'p [u8],
    },
    Rmdir {
        path: &'p [u8],
    },
    Realpath {
        path: &'p [u8],
    },
    Rename {
        from: &'p [u8],
        to: &'p [u8],
    },
    Readlink {
        path: &'p [u8],
    },
    /// OpenSSH's order: where it leads to comes first.
    Symlink {
        target: &'p [u8],
        link: &'p [u8],
    },
    Hardlink {
        from: &'p [u8],
        to: &'p [u8],
    },
    Fsync {
        handle: &'p [u8],
    },
    Statvfs {
        path: &'p [u8],
    },
    Fstatvfs {
        handle: &'p [u8],
    },
    ExpandPath {
        path: &'p [u8],
    },
    /// It names no file: limits, names of users.
    Harmless,
    /// An extension that is not known here.
    Unknown,
}

/// Extensions that a server may offer: the others are not shown to clients. `copy-data` is none of them: what the host copies by itself
/// would be neither counted nor kept.
pub(super) const EXTENSIONS: &[&[u8]] = &[
    b"posix-rename@openssh.com",
    b"statvfs@openssh.com",
    b"fstatvfs@openssh.com",
    b"hardlink@openssh.com",
    b"fsync@openssh.com",
    b"lsetstat@openssh.com",
    b"limits@openssh.com",
    b"expand-path@openssh.com",
    b"users-groups-by-id@openssh.com",
];

/// Reads a packet without its length.
pub(super) struct Reader<'p>(&'p [u8]);

impl<'p> Reader<'p> {
    pub(super) fn new(bytes: &'p [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*head))
    }

    pub(super) fn string(&mut self) -> Result<&'p [u8], Malformed> {
        let length = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(text)
    }

    /// Attributes; the flags of those that are there.
    pub(super) fn attrs(&mut self) -> Result<u32, Malformed> {
        const SIZE: u32 = 1;
        const EXTENDED: u32 = 0x8000_0000;
        let flags = self.u32()?;
        if flags & !(SIZE | 2 | 4 | 8 | EXTENDED) != 0 {
            return Err(Malformed);
        }
        for (flag, words) in [(SIZE, 2), (2, 2), (4, 1), (8, 2)] {
            if flags & flag != 0 {
                for _ in 0..words {
                    self.u32()?;
                }
            }
        }
        if flags & EXTENDED != 0 {
            for _ in 0..self.u32()? {
                self.string()?;
                self.string()?;
            }
        }
        Ok(flags)
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads a request, after its type and id.
pub(super) fn request(kind: u8, body: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut reader = Reader::new(body);
    let read = match kind {
        3 => {
            let path = reader.string()?;
            let flags = reader.u32()?;
            reader.attrs()?;
            if flags & !0x3f != 0 {
                return Err(Malformed);
            }
            // WRITE, APPEND, CREAT, TRUNC; EXCL alone does nothing.
            Request::Open { path, flags: OpenFlags { read: flags & 1 != 0, write: flags & 0x1e != 0 } }
        }
        4 => Request::Close { handle: reader.string()? },
        5 => Request::Read { handle: reader.string()?, offset: reader.u64()?, length: reader.u32()? },
        6 => Request::Write { handle: reader.string()?, offset: reader.u64()?, data: reader.string()? },
        7 => Request::Stat { path: reader.string()?, follow: false },
        8 => Request::Fstat { handle: reader.string()? },
        9 => {
            let path = reader.string()?;
            Request::Setstat { path, follow: true, sizes: reader.attrs()? & 1 != 0 }
        }
        10 => {
            let handle = reader.string()?;
            let changes = reader.attrs()?;
            Request::Fsetstat { handle, sizes: changes & 1 != 0, only_sizes: changes == 1 }
        }
        11 => Request::Opendir { path: reader.string()? },
        12 => Request::Readdir { handle: reader.string()? },
        13 => Request::Remove { path: reader.string()? },
        14 => {
            let path = reader.string()?;
            reader.attrs()?;
            Request::Mkdir { path }
        }
        15 => Request::Rmdir { path: reader.string()? },
        16 => Request::Realpath { path: reader.string()? },
        17 => Request::Stat { path: reader.string()?, follow: true },
        18 => Request::Rename { from: reader.string()?, to: reader.string()? },
        19 => Request::Readlink { path: reader.string()? },
        20 => Request::Symlink { target: reader.string()?, link: reader.string()? },
        200 => match reader.string()? {
            b"posix-rename@openssh.com" => Request::Rename { from: reader.string()?, to: reader.string()? },
            b"statvfs@openssh.com" => Request::Statvfs { path: reader.string()? },
            b"fstatvfs@openssh.com" => Request::Fstatvfs { handle: reader.string()? },
            b"hardlink@openssh.com" => Request::Hardlink { from: reader.string()?, to: reader.string()? },
            b"fsync@openssh.com" => Request::Fsync { handle: reader.string()? },
            b"lsetstat@openssh.com" => {
                let path = reader.string()?;
                Request::Setstat { path, follow: false, sizes: reader.attrs()? & 1 != 0 }
            }
            b"limits@openssh.com" => Request::Harmless,
            b"expand-path@openssh.com" => Request::ExpandPath { path: reader.string()? },
            b"users-groups-by-id@openssh.com" => {
                reader.string()?;
                reader.string()?;
                Request::Harmless
            }
            _ => return Ok(Request::Unknown),
        },
        _ => return Ok(Request::Unknown),
    };
    reader.end()?;
    Ok(read)
}

/// Appends a packet; `fill` writes what follows the type.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(out);
    let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&length.to_be_bytes());
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

pub(super) fn status(out: &mut Vec<u8>, id: u32, code: u32, message: &str) {
    write(out, STATUS, |out| {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&code.to_be_bytes());
        put_string(out, message.as_bytes());
        put_string(out, b"en");
    });
}

/// The first path of a NAME reply with exactly one.
pub(super) fn one_name(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body);
    if reader.u32()? != 1 {
        return Err(Malformed);
    }
    reader.string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn strings(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        parts.iter().for_each(|part| put_string(&mut out, part));
        out
    }

    #[test]
    fn requests_are_read_to_the_end() {
        assert_eq!(request(18, &strings(&[b"a", b"b"])), Ok(Request::Rename { from: b"a", to: b"b" }));
        assert_eq!(request(18, &strings(&[b"a", b"b", b"c"])), Err(Malformed), "something follows");
        assert_eq!(request(18, &strings(&[b"a"])), Err(Malformed));
        let mut open = strings(&[b"/x"]);
        open.extend_from_slice(&[0, 0, 0, 0x1a, 0, 0, 0, 4, 0, 0, 1, 0xa4]);
        let flags = OpenFlags { read: false, write: true };
        assert_eq!(request(3, &open), Ok(Request::Open { path: b"/x", flags }));
        open.truncate(open.len() - 1);
        assert_eq!(request(3, &open), Err(Malformed), "attributes are cut off");
        let link = strings(&[b"hardlink@openssh.com", b"a", b"b"]);
        assert_eq!(request(200, &link), Ok(Request::Hardlink { from: b"a", to: b"b" }));
        assert_eq!(request(200, &strings(&[b"vendor@example"])), Ok(Request::Unknown));
        assert_eq!(request(99, b""), Ok(Request::Unknown));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(kind: u8, body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = request(kind, &body);
        }
    }
}
