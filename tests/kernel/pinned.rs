//! What an agent of another version would have left in a pinned map.
#![expect(unsafe_code, reason = "bpf(2) has no safe interface")]

use std::{ffi::CString, io, os::unix::ffi::OsStrExt as _, path::Path};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_OBJ_GET: libc::c_long = 7;

/// Changes the first four bytes of element 0 of a pinned array of values of up to 256 bytes.
pub(crate) fn write_first_word(pin: &Path, word: u32) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut open = [path.as_ptr().expose_provenance() as u64, 0];
    let fd = bpf(BPF_OBJ_GET, &mut open)?;
    let key = 0_u32;
    let mut value = [0_u32; 64];
    let (key_at, value_at) = ((&raw const key).expose_provenance(), value.as_mut_ptr().expose_provenance());
    let mut element = [fd as u64, key_at as u64, value_at as u64, 0];
    bpf(BPF_MAP_LOOKUP_ELEM, &mut element)?;
    // The kernel reads it behind the compiler's back.
    std::hint::black_box(&mut value)[0] = word;
    let result = bpf(BPF_MAP_UPDATE_ELEM, &mut element).map(drop);
    // SAFETY: the descriptor that was opened above, and nobody else's.
    unsafe { libc::close(i32::try_from(fd).map_err(io::Error::other)?) };
    result
}

fn bpf<const N: usize>(command: libc::c_long, attr: &mut [u64; N]) -> io::Result<libc::c_long> {
    // SAFETY: the attribute is as long as it says; the addresses in it are of this module's locals, which
    // outlive the call and are large enough.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
