//! The links also lie with systemd (sd_pid_notify_with_fds(3), FDSTORE=1): while it has them, nothing is detached even
//! when the agent is dead and somebody removed the pins.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::BorrowedFd,
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Hands over descriptors, each under a name that takes the place of an earlier one. Without systemd nothing is done.
pub(super) fn with_systemd<'a>(links: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>) -> io::Result<usize> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) => hand_over(&socket, links),
        None => Ok(0),
    }
}

fn hand_over<'a>(
    socket: &OsStr,
    links: impl Iterator<Item = (&'a str, BorrowedFd<'a>)>,
) -> io::Result<usize> {
    let to = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let manager = UnixDatagram::unbound()?;
    manager.connect_addr(&to)?;
    let mut count = 0;
    for (name, link) in links {
        // Of the agent before this one. It knew the same link by another descriptor.
        manager.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes())?;
        let descriptors = [link];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let text = format!("FDSTORE=1\nFDNAME={name}\n");
        sendmsg(&manager, &[io::IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _, os::unix::fs::MetadataExt as _};

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;

    /// As systemd would receive it: text, and the very file.
    #[test]
    fn each_link_comes_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let files = ["one", "two"].map(|name| (name, File::create_new(folder.path().join(name)).unwrap()));
        let links = files.iter().map(|(name, file)| (*name, file.as_fd()));
        assert_eq!(hand_over(path.as_os_str(), links).unwrap(), 2);
        for (name, file) in &files {
            let mut text = [0; 128];
            let length = manager.recv(&mut text).unwrap();
            assert_eq!(text[..length], *format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes());
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [io::IoSliceMut::new(&mut text)];
            let length = recvmsg(&manager, parts, &mut control, RecvFlags::empty()).unwrap().bytes;
            let passed = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
                _ => None,
            });
            assert_eq!(text[..length], *format!("FDSTORE=1\nFDNAME={name}\n").as_bytes());
            let passed = File::from(passed.unwrap()).metadata().unwrap();
            assert_eq!(passed.ino(), file.metadata().unwrap().ino());
        }
    }

    #[test]
    fn a_manager_that_is_not_there_is_an_error() {
        let missing = OsStr::new("/nonexistent/notify");
        assert!(hand_over(missing, std::iter::empty()).is_err());
    }
}
