//! What a request is about: scheme, authority, path and query, in one form each.

use core::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Uri, Version, header::HOST};
use policy::{Ambiguity, HttpPath, HttpRequest, Scheme};

use super::{BadRequest, fields};

/// Longest request target, in bytes.
pub const TARGET: usize = 16 * 1024;

/// The connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    pub scheme: Scheme,
    /// What the connection is to: the name in the ClientHello, or the address that was dialled, without brackets, lower case.
    /// `None` where there is no TLS: the request names it.
    pub name: Option<&'a str>,
    pub port: u16,
}

/// Reads a request's head.
///
/// # Errors
/// When it breaks HTTP or could be read differently elsewhere, or is meant for another host than the connection.
pub fn read(
    came: Came<'_>,
    method: &str,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<HttpRequest, BadRequest> {
    let upgrade = fields::check(method, version, headers)?;
    let target = uri.path_and_query().map(http::uri::PathAndQuery::as_str).ok_or(BadRequest::Form)?;
    let (host, port) = authority(uri, version, headers)?;
    let port = port.unwrap_or(came.port);
    let to = came.name.unwrap_or(&host);
    if host != to || port != came.port {
        let shown = |host: &str, port: u16| format!("{host}:{port}");
        return Err(BadRequest::Misdirected { host: shown(&host, port), to: shown(to, came.port) });
    }
    let (path, raw_query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if target.len() > TARGET {
        return Err(BadRequest::TargetLong(TARGET));
    }
    Ok(HttpRequest {
        method: method.to_owned(),
        scheme: came.scheme,
        host,
        port,
        path: self::path(path)?,
        query: raw_query.map(query).transpose()?.unwrap_or_default(),
        raw_query: raw_query.map(str::to_owned),
        headers: names(headers),
        upgrade,
    })
}

fn names(headers: &HeaderMap) -> Vec<String> {
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    names
}

/// Host and port that the request names; both where they are written have to be the same.
fn authority(uri: &Uri, version: Version, headers: &HeaderMap) -> Result<(String, Option<u16>), BadRequest> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(value), None) => Some(value.to_str().map_err(|_| BadRequest::Host)?),
        (None, None) => None,
        _ => return Err(BadRequest::HostCount),
    };
    let named = uri.authority().map(http::uri::Authority::as_str);
    match (version == Version::HTTP_2, named, host) {
        // Absolute form is for proxies, which this is not for a client.
        (false, Some(_), _) => Err(BadRequest::Form),
        (false, None, Some(host)) | (true, None, Some(host)) => host_port(host),
        (true, Some(named), None) => host_port(named),
        (true, Some(named), Some(host)) => match host_port(named)? == host_port(host)? {
            true => host_port(named),
            false => Err(BadRequest::HostAuthority),
        },
        (_, None, None) => Err(BadRequest::HostCount),
    }
}

/// `host`, `host:port`, `[v6]:port`: lower case, without the last dot and without brackets.
///
/// # Errors
/// When it is something else.
pub fn host_port(text: &str) -> Result<(String, Option<u16>), BadRequest> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(BadRequest::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| BadRequest::Host)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or(BadRequest::Host)?),
            };
            (IpAddr::from(address).to_canonical().to_string(), port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(text)?, None),
        },
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port {
        None => Ok((host, None)),
        Some(port) if digits(port) => {
            Ok((host, Some(port.parse().ok().filter(|port| *port != 0).ok_or(BadRequest::Host)?)))
        }
        Some(_) => Err(BadRequest::Host),
    }
}

/// A host's name in its one form.
///
/// # Errors
/// When it has characters that no name has.
pub fn name(text: &str) -> Result<String, BadRequest> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let label = |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(plain);
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(BadRequest::Host),
    }
}

/// Reads a path in every way that servers do.
///
/// # Errors
/// When it does not begin with a slash, or is not encoded rightly.
pub fn path(raw: &str) -> Result<HttpPath, BadRequest> {
    if raw.len() > TARGET {
        return Err(BadRequest::TargetLong(TARGET));
    }
    let inner = raw.strip_prefix('/').ok_or(BadRequest::Form)?;
    if raw.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || matches!(byte, b'#' | b'?')) {
        return Err(BadRequest::Character);
    }
    let mut ambiguous = Vec::new();
    let mut segments = Vec::new();
    for piece in pieces(inner) {
        let decoded = decode(piece)?;
        ways(piece, &decoded, &mut ambiguous);
        segments.push(String::from_utf8_lossy(&decoded).into_owned());
    }
    ambiguous.sort();
    ambiguous.dedup();
    let mut readings = Vec::new();
    if !ambiguous.is_empty() {
        for choice in 0..Reading::CHOICES {
            let reading = Reading::of(choice).read(inner);
            if reading != segments && !readings.contains(&reading) {
                readings.push(reading);
            }
        }
    }
    Ok(HttpPath { raw: raw.to_owned(), segments, ambiguous, readings })
}

/// Between slashes; a slash at the end makes no piece.
fn pieces(inner: &str) -> impl Iterator<Item = &str> {
    let whole = inner.strip_suffix('/').unwrap_or(inner);
    // `//` at the end is an empty segment and a slash at the end.
    let none = inner.is_empty();
    whole.split('/').filter(move |_| !none)
}

fn ways(piece: &str, decoded: &[u8], ambiguous: &mut Vec<Ambiguity>) {
    let has = |byte: u8| decoded.contains(&byte);
    let bare = decoded.split(|byte| *byte == b';').next().unwrap_or_default();
    let doubled = decoded
        .windows(3)
        .any(|three| matches!(three, [b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()));
    let found = [
        (Ambiguity::EmptySegment, piece.is_empty()),
        (Ambiguity::EncodedSlash, has(b'/')),
        (Ambiguity::Backslash, has(b'\\')),
        (Ambiguity::DotSegment, bare == b"." || bare == b".." || dotted(decoded)),
        (Ambiguity::Parameter, has(b';')),
        (Ambiguity::DoubleEncoding, doubled),
        (Ambiguity::Control, decoded.iter().any(|byte| *byte < 0x20 || *byte == 0x7f)),
        (Ambiguity::NotUtf8, std::str::from_utf8(decoded).is_err()),
    ];
    ambiguous.extend(found.into_iter().filter(|(_, is)| *is).map(|(way, _)| way));
}

/// A name of dots between encoded slashes or backslashes.
fn dotted(decoded: &[u8]) -> bool {
    let mut names = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    names.any(|name| name == b"." || name == b"..")
}

/// One way to read an ambiguous path.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Decoded until nothing is left to decode.
    again: bool,
    /// Encoded slashes part segments.
    split: bool,
    /// Backslashes do.
    backslash: bool,
    /// What follows `;` or NUL is cut off each segment.
    cut: bool,
    /// `.` and `..` are followed.
    dots: bool,
}

impl Reading {
    const CHOICES: u8 = 32;
    /// Times that something is decoded.
    const DEPTH: usize = 8;

    fn of(choice: u8) -> Self {
        let bit = |n: u8| choice & n != 0;
        Self { again: bit(1), split: bit(2), backslash: bit(4), cut: bit(8), dots: bit(16) }
    }

    fn read(self, inner: &str) -> Vec<String> {
        let mut segments: Vec<Vec<u8>> = Vec::new();
        for piece in inner.split('/') {
            let mut bytes = lenient(piece.as_bytes());
            for _ in 0..Self::DEPTH {
                if !self.again {
                    break;
                }
                let next = lenient(&bytes);
                if next == bytes {
                    break;
                }
                bytes = next;
            }
            let parts = |byte: &u8| (self.split && *byte == b'/') || (self.backslash && *byte == b'\\');
            for name in bytes.split(parts) {
                let name = match self.cut {
                    true => name.split(|byte| matches!(byte, b';' | 0)).next().unwrap_or_default(),
                    false => name,
                };
                match name {
                    b"" => {}
                    b"." if self.dots => {}
                    b".." if self.dots => drop(segments.pop()),
                    name => segments.push(name.to_vec()),
                }
            }
        }
        segments.into_iter().map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn escape(text: &[u8]) -> Option<u8> {
    match text {
        [b'%', a, b, ..] => Some((hex(*a)? << 4) | hex(*b)?),
        _ => None,
    }
}

/// Percent-encoding undone once.
fn decode(text: &str) -> Result<Vec<u8>, BadRequest> {
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                decoded.push(escape(rest).ok_or(BadRequest::Escape)?);
                rest.get(3..).unwrap_or_default()
            }
            byte => {
                decoded.push(*byte);
                after
            }
        };
    }
    Ok(decoded)
}

/// The same where what is no escape stays.
fn lenient(mut rest: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        match escape(rest) {
            Some(value) => {
                decoded.push(value);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    decoded
}

/// Parameters of a query, as forms have them.
///
/// # Errors
/// When it is not encoded rightly.
pub fn query(raw: &str) -> Result<Vec<(String, String)>, BadRequest> {
    if raw.bytes().any(|byte| !(0x21..0x7f).contains(&byte) || byte == b'#') {
        return Err(BadRequest::Character);
    }
    let text = |part: &str| {
        let decoded = decode(&part.replace('+', " "))?;
        Ok(String::from_utf8_lossy(&decoded).into_owned())
    };
    // `;` parts parameters for some servers: for those that it does not, the value is longer and matches nothing by mistake.
    raw.split(['&', ';'])
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((text(name)?, text(value)?))
        })
        .collect()
}

/// A request as `policy test` and `policy explain` write it.
///
/// # Errors
/// Says what is wrong with it.
pub fn case(case: &policy::HttpCase) -> Result<policy::Http, String> {
    let uri: Uri = case.url.parse().map_err(|_| format!("`{}` is no URL", case.url))?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(format!("`{}` is no URL of http or https", case.url)),
    };
    let named = uri.authority().ok_or_else(|| format!("`{}` names no host", case.url))?;
    let (host, port) = host_port(named.as_str()).map_err(|wrong| wrong.to_string())?;
    let port = port.unwrap_or(scheme.port());
    if case.pass_through {
        return Ok(policy::Http::PassThrough(policy::PassThrough { host, port }));
    }
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let target: Uri = target.parse().map_err(|_| format!("`{}` has no path", case.url))?;
    let mut headers = HeaderMap::new();
    let value = |text: &str| {
        http::HeaderValue::from_str(text).map_err(|_| format!("`{text}` cannot be in a header field"))
    };
    headers.insert(HOST, value(named.as_str())?);
    if let Some(upgrade) = &case.upgrade {
        headers.insert(http::header::CONNECTION, value("upgrade")?);
        headers.insert(http::header::UPGRADE, value(upgrade)?);
    }
    let came = Came { scheme, name: Some(&host), port };
    let method = case.method.as_deref().unwrap_or("GET");
    let request =
        read(came, method, &target, Version::HTTP_11, &headers).map_err(|wrong| wrong.to_string())?;
    Ok(policy::Http::Request(request))
}

#[cfg(test)]
mod tests;
