//! What the gateway itself asks over HTTPS: issuers for their keys, Vault for certificates.

use std::{path::Path, time::Duration};

use serde::Serialize;

/// For everything, the answer's last byte included.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// A client that verifies names and chains, speaks nothing but HTTPS, and follows redirects on one host.
#[derive(Debug)]
pub struct Https(reqwest::Client);

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Https {
    /// `ca`: PEM certificates; only those are trusted then, instead of the host's own.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let tls = crate::tls::roots_config(ca).map_err(|error| error.to_string())?;
        let same_host = reqwest::redirect::Policy::custom(|attempt| {
            let first = attempt.previous().first();
            let same = first.is_some_and(|from| {
                from.host_str() == attempt.url().host_str()
                    && from.port_or_known_default() == attempt.url().port_or_known_default()
                    && attempt.url().scheme() == "https"
            });
            if same && attempt.previous().len() <= 3 {
                attempt.follow()
            } else {
                attempt.error("redirected to another host or too often")
            }
        });
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .redirect(same_host)
            .connect_timeout(CONNECT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(0)
            .user_agent(concat!("gateway-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(|error| error.to_string())
    }

    /// The body of a successful answer, of at most this many bytes.
    ///
    /// # Errors
    /// For people: whatever went wrong, the answer's status included.
    pub async fn get(&self, url: &str, most: usize) -> Result<Vec<u8>, String> {
        let response = self.0.get(url).send().await.map_err(told)?.error_for_status().map_err(told)?;
        Ok(read(response, url, most).await?.body)
    }

    /// Sends JSON; the answer, whatever its status, with at most this many bytes. Values of header fields are never shown.
    ///
    /// # Errors
    /// For people.
    pub async fn post(
        &self,
        url: &str,
        fields: &[(&'static str, &str)],
        body: &impl Serialize,
        most: usize,
    ) -> Result<Answer, String> {
        let mut request = self.0.post(url).json(body);
        for (name, value) in fields {
            let mut value = reqwest::header::HeaderValue::from_str(value)
                .map_err(|_| format!("the value of {name} cannot be sent"))?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        read(request.send().await.map_err(told)?, url, most).await
    }
}

async fn read(mut response: reqwest::Response, url: &str, most: usize) -> Result<Answer, String> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > most {
            return Err(format!("{url} answers with more than {} KiB", most / 1024));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body })
}

/// With its causes.
fn told(error: reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
