//! A stand-in for a kubelet: its HTTPS API as far as API servers use it for logs, exec, attach and port-forward.
//!
//! Behind exec there is no container but a program of this machine, in a folder of its own; streams are WebSockets
//! (`v4.channel.k8s.io`, `v5.channel.k8s.io`), forwarded ports SPDY/3.1 as well. What it was asked for is kept.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use protocol::kubernetes::spdy;

use crate::{netns::Netns, pki::Authority};

/// Where it listens.
pub const PORT: u16 = 10_250;
/// What a container's log says, besides what a test puts there.
pub const LOG: &str = "started\n";

/// A running stand-in.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Request lines.
    asked: Mutex<Vec<String>>,
    /// Logs by container.
    logs: Mutex<HashMap<String, String>>,
    folder: PathBuf,
    /// Ports to which connections were opened through a tunnel.
    tunnelled: Mutex<Vec<u16>>,
}

impl Kubelet {
    /// Serves inside a namespace.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(space: &Netns, address: &str, ca: &Authority, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let identity = ca.server(&[address])?;
        let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(chain, key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address: SocketAddr = format!("{address}:{PORT}").parse()?;
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            logs: Mutex::default(),
            folder: folder.to_owned(),
            tunnelled: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let (space, served) = (space.clone(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            let inside = space.enter(|| serve(address, &acceptor, &served, stopped, &ready));
            if let Ok(Err(error)) | Err(error) = inside {
                ready.send(Err(error)).ok();
            }
        });
        started.recv().context("the stand-in's thread ended")??;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Every request so far: method, path and query.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ports to which connections were opened through tunnels.
    #[must_use]
    pub fn tunnelled(&self) -> Vec<u16> {
        self.shared.tunnelled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a container's log says from now on.
    pub fn write_log(&self, container: &str, text: &str) {
        let mut logs = self.shared.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.insert(container.to_owned(), text.to_owned());
    }

    /// The folder that programs run in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn serve(
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
    ready: &mpsc::Sender<Result<()>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        ready.send(Ok(())).ok();
        let accept = async {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        answer(stream, &shared).await.ok();
                    }
                });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
        Ok(())
    })
}

type Connection = TlsStream<TcpStream>;

async fn answer(mut stream: Connection, shared: &Shared) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 16_384 {
            bail!("a long head");
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let line = format!("{method} {target}");
    shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let websocket = field("upgrade").is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
    match (parts.as_slice(), websocket) {
        (["containerLogs", _, _, container], _) => {
            let known = |container: &str| {
                let logs = shared.logs.lock().unwrap_or_else(PoisonError::into_inner);
                logs.get(container).cloned()
            };
            let text = known(container).unwrap_or_else(|| LOG.to_owned());
            reply(&mut stream, "200 OK", &text).await
        }
        (["portForward", ..], false)
            if field("upgrade").is_some_and(|name| name.eq_ignore_ascii_case(spdy::UPGRADE)) =>
        {
            tunnel(stream, shared).await
        }
        ([what @ ("exec" | "attach" | "portForward"), ..], true) => {
            let offered = field("sec-websocket-protocol").unwrap_or_default();
            let known = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
            let chosen = known.iter().find(|known| offered.split(',').any(|one| one.trim() == **known));
            let Some(chosen) = chosen else {
                return reply(&mut stream, "400 Bad Request", "no known protocol\n").await;
            };
            accept(&mut stream, &field("sec-websocket-key").unwrap_or_default(), chosen).await?;
            let words: Vec<String> = query
                .split('&')
                .filter_map(|pair| pair.strip_prefix("command="))
                .map(|word| decode(&word.replace('+', " ")))
                .collect();
            match *what {
                "exec" => exec(stream, &words, &shared.folder).await,
                // What is typed comes back.
                "attach" => exec(stream, &["cat".to_owned()], &shared.folder).await,
                _ => echo(stream, query).await,
            }
        }
        _ => reply(&mut stream, "404 Not Found", "the stand-in does not have this\n").await,
    }
}

async fn reply(stream: &mut Connection, status: &str, body: &str) -> Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

async fn accept(stream: &mut Connection, key: &str, protocol: &str) -> Result<()> {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {}\r\nsec-websocket-protocol: {protocol}\r\n\r\n",
        STANDARD.encode(digest)
    );
    Ok(stream.write_all(head.as_bytes()).await?)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match (first, hex.and_then(|two| u8::from_str_radix(two, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A whole message from the client; `None`: it is gone.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Vec<u8>>> {
    loop {
        let mut head = [0; 2];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok(None);
        }
        let length = match head[1] & 0x7f {
            126 => usize::from(stream.read_u16().await?),
            127 => usize::try_from(stream.read_u64().await?)?,
            short => usize::from(short),
        };
        if length > 16 << 20 {
            bail!("a long message");
        }
        let mut key = [0; 4];
        stream.read_exact(&mut key).await?;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        match head[0] & 0x0f {
            8 => return Ok(None),
            0..=2 => return Ok(Some(payload)),
            _ => {}
        }
    }
}

fn frame(channel: u8, data: &[u8]) -> Vec<u8> {
    let length = data.len() + 1;
    let mut out = vec![0x82];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(middle)) => {
            out.push(126);
            out.extend_from_slice(&middle.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.push(channel);
    out.extend_from_slice(data);
    out
}

async fn exec(stream: Connection, words: &[String], folder: &Path) -> Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let status = |text: String| {
        let details = match text.as_str() {
            "0" => r#"{"metadata":{},"status":"Success"}"#.to_owned(),
            code => format!(
                r#"{{"metadata":{{}},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with exit code {code}","details":{{"causes":[{{"reason":"ExitCode","message":"{code}"}}]}}}}"#
            ),
        };
        frame(3, details.as_bytes())
    };
    let Ok(mut child) = command.spawn() else {
        write.write_all(&status("126".to_owned())).await?;
        return Ok(write.shutdown().await?);
    };
    let (mut input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        while let Ok(Some(message)) = message(&mut read).await {
            match message.split_first() {
                Some((0, data)) => {
                    if let Some(pipe) = &mut input
                        && pipe.write_all(data).await.is_err()
                    {
                        break;
                    }
                }
                Some((255, [0, ..])) => input = None,
                _ => {}
            }
        }
    };
    let (sender, mut pieces) = tokio::sync::mpsc::channel::<Vec<u8>>(16);
    let (out, err) = (tokio::spawn(copy(output, 1, sender.clone())), tokio::spawn(copy(errors, 2, sender)));
    let feed = tokio::spawn(feed);
    while let Some(piece) = pieces.recv().await {
        write.write_all(&piece).await?;
    }
    out.await.ok();
    err.await.ok();
    let code = child.wait().await?.code().unwrap_or(137);
    write.write_all(&status(code.to_string())).await?;
    write.write_all(&[0x88, 2, 0x03, 0xe8]).await?;
    write.flush().await?;
    tokio::time::timeout(std::time::Duration::from_secs(2), feed).await.ok();
    Ok(write.shutdown().await?)
}

async fn copy(from: Option<impl AsyncRead + Unpin>, channel: u8, to: tokio::sync::mpsc::Sender<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut room = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut room).await {
        if to.send(frame(channel, room.get(..read).unwrap_or_default())).await.is_err() {
            return;
        }
    }
}

/// Each port sends back what it is sent. The first message of a channel is its port's number.
async fn echo(mut stream: Connection, query: &str) -> Result<()> {
    let ports: Vec<u16> = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("port="))
        .flat_map(|ports| decode(ports).split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|port| port.parse().ok())
        .collect();
    for (index, port) in ports.iter().enumerate() {
        let channel = u8::try_from(index * 2)?;
        for channel in [channel, channel + 1] {
            stream.write_all(&frame(channel, &port.to_le_bytes())).await?;
        }
    }
    while let Some(message) = message(&mut stream).await? {
        if let Some((channel, data)) = message.split_first() {
            stream.write_all(&frame(*channel, data)).await?;
        }
    }
    Ok(())
}

/// SPDY/3.1, spoken by Python's zlib: each connection sends back what it is sent. It prints the ports on standard error.
const TUNNEL: &str = r#"
import struct, sys, zlib
words = bytes.fromhex(sys.argv[1])
source, sink = sys.stdin.buffer, sys.stdout.buffer
down, up = zlib.decompressobj(zdict=words), zlib.compressobj(zdict=words)
streams = {}
def send(word, flags, payload):
    sink.write(struct.pack(">I", word) + bytes([flags]) + len(payload).to_bytes(3, "big") + payload)
    sink.flush()
while len(head := source.read(8)) == 8:
    word, flags, payload = int.from_bytes(head[:4], "big"), head[4], source.read(int.from_bytes(head[5:], "big"))
    if word >> 31 == 0:
        kind, request = streams[word]
        if kind == "data" and payload:
            send(word, 0, payload)
        if kind == "data" and flags & 1:
            for stream, (_, other) in streams.items():
                if other == request:
                    send(stream, 1, b"")
    elif word & 0xffff == 1:
        stream, block, fields = int.from_bytes(payload[:4], "big"), down.decompress(payload[10:]), []
        at = 4
        for _ in range(2 * int.from_bytes(block[:4], "big")):
            length = int.from_bytes(block[at:at + 4], "big")
            fields.append(block[at + 4:at + 4 + length].decode())
            at += 4 + length
        fields = dict(zip(fields[::2], fields[1::2]))
        streams[stream] = (fields["streamtype"], fields["requestid"])
        if fields["streamtype"] == "data":
            print(fields["port"], file=sys.stderr, flush=True)
        send(0x80030002, 0, struct.pack(">I", stream) + up.compress(bytes(4)) + up.flush(zlib.Z_SYNC_FLUSH))
    elif word & 0xffff == 6:
        send(word, 0, payload)
"#;

async fn tunnel(mut stream: Connection, shared: &Shared) -> Result<()> {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: SPDY/3.1\r\nx-stream-protocol-version: {}\r\n\r\n",
        spdy::PROTOCOL
    );
    stream.write_all(head.as_bytes()).await?;
    let words: String = spdy::DICTIONARY.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut python = tokio::process::Command::new("/usr/bin/python3");
    python.args(["-c", TUNNEL, &words]).kill_on_drop(true);
    python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = python.spawn()?;
    let (mut input, mut output) =
        (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
    let mut ports = tokio::io::BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let (mut read, mut write) = tokio::io::split(stream);
    let up = tokio::io::copy(&mut read, &mut input);
    let down = tokio::io::copy(&mut output, &mut write);
    let told = async {
        while let Ok(Some(line)) = ports.next_line().await {
            if let Ok(port) = line.parse() {
                shared.tunnelled.lock().unwrap_or_else(PoisonError::into_inner).push(port);
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = up => done.map(drop)?,
        done = down => done.map(drop)?,
        () = told => {}
    }
    Ok(())
}
