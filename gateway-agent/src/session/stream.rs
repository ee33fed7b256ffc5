//! One leg of a session: TCP, or TLS over it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, rustls::pki_types::ServerName, server};

/// A leg's byte stream.
pub enum Stream {
    Plain(TcpStream),
    Accepted(Box<server::TlsStream<TcpStream>>),
    Connected(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Ends TLS from the job on this leg.
    ///
    /// # Errors
    /// Fails when the handshake does, or when TLS is on already.
    pub async fn accept_tls(self, acceptor: TlsAcceptor) -> io::Result<Self> {
        match self {
            Self::Plain(tcp) => Ok(Self::Accepted(Box::new(acceptor.accept(tcp).await?))),
            Self::Accepted(_) | Self::Connected(_) => Err(io::Error::other("TLS is on already")),
        }
    }

    /// Starts TLS towards the upstream on this leg.
    ///
    /// # Errors
    /// Fails when the handshake or the certificate check does, or when TLS is on already.
    pub async fn connect_tls(self, connector: TlsConnector, name: ServerName<'static>) -> io::Result<Self> {
        match self {
            Self::Plain(tcp) => Ok(Self::Connected(Box::new(connector.connect(name, tcp).await?))),
            Self::Accepted(_) | Self::Connected(_) => Err(io::Error::other("TLS is on already")),
        }
    }

    /// The protocol that the handshake with the job agreed on.
    pub fn job_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Accepted(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Connected(_) => None,
        }
    }

    /// The protocol that the handshake with the upstream agreed on.
    pub fn host_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::Connected(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Plain(_) | Self::Accepted(_) => None,
        }
    }

    /// The upstream's leaf certificate, DER, once TLS is on.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Connected(tls) => Some(tls.get_ref().1.peer_certificates()?.first()?.as_ref()),
            Self::Plain(_) | Self::Accepted(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Accepted(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
            Self::Connected(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Accepted(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
            Self::Connected(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Accepted(s) => Pin::new(s.as_mut()).poll_flush(cx),
            Self::Connected(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Accepted(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
            Self::Connected(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}
