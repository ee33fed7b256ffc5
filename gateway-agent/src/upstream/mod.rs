//! Connections to the servers behind resources.
//!
//! The address is the one the job dialled, as the kernel saw it; nobody else names one.

mod addresses;
mod catalogue;
mod names;
mod own;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use policy::{Permit, Resource};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub use addresses::Addresses;
pub use catalogue::{Catalogues, FRESH, Place, Stay, no_names};
pub use names::{Answer, Names};
pub use own::{OwnConnection, OwnError, Target};
pub use tls::Tls;

use crate::{
    session::stream::Stream,
    tls::{TlsError, server_end_point},
};

/// How long a cancel request may take altogether.
const CANCEL: Duration = Duration::from_secs(5);

/// Why an upstream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("{address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{0} does not answer")]
    Timeout(SocketAddr),
    #[error("the permit is for resource {permit}, not for {resource}")]
    Permit { permit: String, resource: Arc<str> },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("TLS with {address}: {source}")]
    Handshake { address: SocketAddr, source: io::Error },
    #[error("resource {0} has tls: disable, yet TLS was to be started")]
    NotConfigured(Arc<str>),
}

/// Opens a connection that `permit` is good for.
///
/// # Errors
/// Fails when the permit is for another resource, or the server does not accept in time.
pub async fn connect(
    permit: &Permit,
    resource: &Resource,
    address: SocketAddr,
    patience: Duration,
) -> Result<Stream, UpstreamError> {
    if permit.resource() != &*resource.name {
        return Err(UpstreamError::Permit {
            permit: permit.resource().to_owned(),
            resource: Arc::clone(&resource.name),
        });
    }
    dial(address, patience).await
}

async fn dial(address: SocketAddr, patience: Duration) -> Result<Stream, UpstreamError> {
    let tcp = timeout(patience, TcpStream::connect(address))
        .await
        .map_err(|_| UpstreamError::Timeout(address))?
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|source| UpstreamError::Connect { address, source })?;
    Ok(Stream::Plain(tcp))
}

/// Starts TLS on a connection and checks the server as the resource asks. Also returns the certificate's hash
/// for channel binding (RFC 5929 `tls-server-end-point`).
///
/// # Errors
/// Fails when the handshake or the check does.
pub async fn start_tls(
    tls: &Tls,
    resource: &Resource,
    address: SocketAddr,
    stream: Stream,
) -> Result<(Stream, Option<Vec<u8>>), UpstreamError> {
    let client = tls
        .upstream(resource, address)?
        .ok_or_else(|| UpstreamError::NotConfigured(Arc::clone(&resource.name)))?;
    let stream = stream
        .connect_tls(TlsConnector::from(client.config), client.server_name)
        .await
        .map_err(|source| UpstreamError::Handshake { address, source })?;
    let end_point = stream.peer_certificate().and_then(server_end_point);
    Ok((stream, end_point))
}

/// Sends a PostgreSQL CancelRequest on a connection of its own and waits for the server to close it, which is
/// when the server has acted. Never fails: a cancel is a wish.
pub async fn cancel(tls: Arc<Tls>, resource: Arc<Resource>, address: SocketAddr, request: Vec<u8>) {
    let send = async {
        let mut stream = dial(address, CANCEL).await.map_err(|e| e.to_string())?;
        if tls.upstream(&resource, address).map_err(|e| e.to_string())?.is_some() {
            /// SSLRequest: length 8, code 80877103.
            const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
            stream.write_all(&SSL_REQUEST).await.map_err(|e| e.to_string())?;
            if stream.read_u8().await.map_err(|e| e.to_string())? != b'S' {
                return Err("the server refuses TLS".to_owned());
            }
            stream = start_tls(&tls, &resource, address, stream).await.map_err(|e| e.to_string())?.0;
        }
        stream.write_all(&request).await.map_err(|e| e.to_string())?;
        stream.flush().await.map_err(|e| e.to_string())?;
        // EOF or a reset both mean that the server is done with it.
        let _ = stream.read(&mut [0; 1]).await;
        Ok(())
    };
    match timeout(CANCEL, send).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%address, error, "cancel request failed"),
        Err(_) => tracing::warn!(%address, "cancel request timed out"),
    }
}

/// The setting, as the server parses it: identifiers quoted, comma separated.
pub fn search_path(schemas: &[String]) -> String {
    let quoted: Vec<_> = schemas.iter().map(|s| format!("\"{}\"", s.replace('"', "\"\""))).collect();
    quoted.join(", ")
}
