//! What a job may ask of the kernel.

use serde_json::json;

use crate::{builder, inside, outside, world};

/// Tries sockets and calls; prints what came of each: an error's name, or "ok".
const PROBE: &str = r#"
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def name(): return errno.errorcode.get(ctypes.get_errno(), "?")
def call(number, *args):
    return "ok" if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in args]) >= 0 else name()
def sock(family, kind=socket.SOCK_DGRAM, protocol=0):
    fd = libc.socket(family, kind, protocol)
    if fd < 0: return name()
    os.close(fd)
    return "ok"
said = {
    "families": {f: sock(f) for f in range(0, 47)},
    "stream": sock(2, 1), "stream6": sock(10, 1), "route": sock(16, 3, 0),
    "netlink": {p: sock(16, 3, p) for p in range(1, 23)},
    "vsock": sock(40, 1), "raw": sock(2, 3, 1), "raw6": sock(10, 3, 58), "packet": sock(2, 10, 0x300),
    # The kernel reads an int: what is above it must not hide it.
    "wide": call(41, 40 | 1 << 32, 1, 0),
    "pair": "ok" if libc.socketpair(1, 1, 0, (ctypes.c_int * 2)()) == 0 else name(),
    "io_uring": call(425, 1, 0), "bpf": call(321, 0, 0, 0), "ptrace": call(101, 0, 0, 0, 0),
    "process_vm": call(310, os.getpid(), 0, 0, 0, 0, 0), "pidfd_getfd": call(438, -1, 0, 0),
    "keyctl": call(250, 0, -1, 0), "mount": call(165, 0, 0, 0, 0, 0), "open_tree": call(428, -100, 0, 0),
    "by_handle": call(304, -1, 0, 0), "setns": call(308, -1, 0), "perf": call(298, 0, 0, 0, 0, 0),
    "userfaultfd": call(323, 1), "unshare_user": call(272, 0x10000000), "unshare_net": call(272, 0x40000000),
    "unshare_files": call(272, 0x400), "clone3": call(435, 0, 0), "newest": call(500), "x32": call(0x40000000 | 41, 2, 1, 0),
    "typing": "ok" if libc.ioctl(0, ctypes.c_ulong(0x5412), b"x") == 0 else name(),
    "typing_wide": "ok" if libc.ioctl(0, ctypes.c_ulong(0x5412 | 1 << 32), b"x") == 0 else name(),
}
print(json.dumps(said))
"#;

#[test]
fn families_and_calls_that_go_around_the_hooks_are_refused() {
    let world = world();
    let (there, seen) = (outside(&world, PROBE), inside(&world, PROBE));
    for (family, answer) in seen["families"].as_object().expect("families") {
        let expected = match &**family {
            "1" | "2" | "10" => "ok",
            "16" => "ok",
            _ => "EPERM",
        };
        assert_eq!(answer, expected, "family {family}: {seen}");
    }
    assert!(seen["netlink"].as_object().expect("protocols").values().all(|v| v == "EPERM"), "{seen}");
    for open in ["stream", "stream6", "route", "pair", "unshare_files"] {
        assert_eq!(seen[open], "ok", "{open}: {seen}");
    }
    for closed in [
        "vsock",
        "raw",
        "raw6",
        "packet",
        "wide",
        "io_uring",
        "bpf",
        "ptrace",
        "process_vm",
        "pidfd_getfd",
        "keyctl",
        "mount",
        "open_tree",
        "by_handle",
        "setns",
        "perf",
        "userfaultfd",
        "unshare_user",
        "unshare_net",
        "typing",
        "typing_wide",
    ] {
        assert_eq!(seen[closed], "EPERM", "{closed}: {seen}");
        assert_ne!(there[closed], "EPERM", "{closed} is refused without the filter too: {there}");
    }
    for absent in ["clone3", "newest", "x32"] {
        assert_eq!(seen[absent], "ENOSYS", "{absent}: {seen}");
    }
    assert_ne!(there["clone3"], "ENOSYS", "{there}");
}

/// `int 0x80`, the way into the kernel of 32-bit programs: socket(AF_VSOCK) by its number there.
#[cfg(target_arch = "x86_64")]
const INT80: &str = r#"
import ctypes, json, mmap, os
# push rbx; mov eax, 359; mov ebx, 40; mov ecx, 1; xor edx, edx; int 0x80; pop rbx; ret
code = b"\x53\xb8\x67\x01\x00\x00\xbb\x28\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\x5b\xc3"
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
pid = os.fork()
if pid == 0:
    run()
    os._exit(0)
print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
"#;

#[test]
#[cfg(target_arch = "x86_64")]
fn the_32_bit_way_into_the_kernel_kills() {
    let world = world();
    match outside(&world, INT80).as_i64() {
        Some(0) => {}
        without => {
            eprintln!("skipped: this kernel has no 32-bit calls ({without:?})");
            return;
        }
    }
    let sigsys = rustix::process::Signal::SYS.as_raw();
    assert_eq!(inside(&world, INT80), json!(-sigsys));
}

#[test]
fn what_is_allowed_by_name_works_and_nothing_else_changes() {
    let world = builder()
        .configure("/jobs/io_uring", "allow")
        .configure("/jobs/namespaces", "allow")
        .configure("/jobs/ptrace", "allow")
        .up();
    let (there, seen) = (outside(&world, PROBE), inside(&world, PROBE));
    for open in ["io_uring", "process_vm", "pidfd_getfd", "clone3", "unshare_user"] {
        assert_eq!(seen[open], there[open], "{open}: {seen}");
    }
    for closed in ["vsock", "bpf", "mount", "setns", "keyctl"] {
        assert_eq!(seen[closed], "EPERM", "{closed}: {seen}");
    }
}

#[test]
fn ordinary_programs_run() {
    let world = world();
    let program = r#"
import json, multiprocessing, os, socket, subprocess, tempfile, threading
def square(n): return n * n
if __name__ == "__main__":
    said = {}
    thread = threading.Thread(target=lambda: said.update(thread=True)); thread.start(); thread.join()
    said["pool"] = sum(multiprocessing.get_context("fork").Pool(2).map(square, range(10)))
    said["shell"] = subprocess.run("echo $((6*7)) | cat", shell=True, capture_output=True, text=True).stdout.strip()
    with tempfile.NamedTemporaryFile() as file: said["temporary"] = os.path.dirname(file.name)
    listener = socket.create_server(("127.0.0.1", 0)); said["listens"] = listener.getsockname()[0]
    said["names"] = [i[1] for i in socket.if_nameindex()][0]
    print(json.dumps(said))
"#;
    let said = inside(&world, program);
    assert_eq!(
        said,
        json!({ "thread": true, "pool": 285, "shell": "42", "temporary": "/tmp", "listens": "127.0.0.1", "names": "lo" })
    );
}
