//! What stands for Vault, which cannot be had here: the calls by which its SSH secrets engine signs user certificates and its `auth/jwt`
//! logs in, answered in the shapes of its HTTP API. The certificates are real: ssh-keygen makes them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    https::{Answer, Request, Server},
    netns::Netns,
    pki::Authority,
    process,
};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Right,
    /// Signs for another name than it was asked for.
    OtherPrincipal,
    /// For longer than asked.
    Longer,
    /// For its own key.
    OtherKey,
    /// Lends a terminal, an agent and whatever else ssh-keygen lends by default.
    Generous,
    /// Refuses, in its own words.
    Refuses,
    /// A page of something else.
    Nonsense,
    /// More than anybody reads.
    Endless,
}

/// A running stand-in.
#[derive(Debug)]
pub struct Vault {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    /// Path and body of each request that had a token it takes.
    asked: Vec<(String, Value)>,
    folder: PathBuf,
    authority: PathBuf,
    token: String,
    jwt: String,
}

impl Vault {
    /// Serves inside a namespace. `folder`: its own; `authority`: the private key that it signs with; `token` and `jwt`: what it takes.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(
        space: &Netns,
        address: SocketAddr,
        ca: &Authority,
        (folder, authority): (&Path, &Path),
        (token, jwt): (&str, &str),
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let state = Arc::new(Mutex::new(State {
            mood: Mood::default(),
            asked: Vec::new(),
            folder: folder.to_owned(),
            authority: authority.to_owned(),
            token: token.to_owned(),
            jwt: jwt.to_owned(),
        }));
        let shared = Arc::clone(&state);
        let server = Server::start(space, address, ca, move |request| {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            state
                .answer(request)
                .unwrap_or_else(|error| refusal("500 Internal Server Error", &format!("{error:#}")))
        })?;
        Ok(Self { server, state })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    pub fn set(&self, mood: Mood) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).mood = mood;
    }

    /// What it was asked, by whom it knows.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).asked.clone()
    }
}

fn refusal(status: &'static str, words: &str) -> Answer {
    (status, json!({ "errors": [words] }).to_string())
}

impl State {
    fn answer(&mut self, request: &Request) -> Result<Answer> {
        ensure!(request.method == "POST", "{} is nothing here", request.method);
        let body: Value = serde_json::from_slice(&request.body)?;
        if request.path == "/v1/auth/jwt/login" {
            return Ok(match body["jwt"] == self.jwt.as_str() && body["role"] == "gateway" {
                true => (
                    "200 OK",
                    json!({ "auth": { "client_token": self.token, "lease_duration": 60 } }).to_string(),
                ),
                false => refusal("400 Bad Request", "error validating token"),
            });
        }
        if request.field("x-vault-token") != Some(&self.token) {
            return Ok(refusal("403 Forbidden", "permission denied"));
        }
        self.asked.push((request.path.clone(), body.clone()));
        match (request.path.as_str(), self.mood) {
            ("/v1/auth/token/revoke-self", _) => Ok(("204 No Content", String::new())),
            ("/v1/ssh-ci/sign/deploy", Mood::Refuses) => {
                Ok(refusal("400 Bad Request", "deploy is not a valid value for valid_principals"))
            }
            ("/v1/ssh-ci/sign/deploy", Mood::Nonsense) => Ok(("200 OK", "<html></html>".to_owned())),
            ("/v1/ssh-ci/sign/deploy", Mood::Endless) => Ok(("200 OK", " ".repeat(10_000_000))),
            ("/v1/ssh-ci/sign/deploy", mood) => self.sign(&body, mood),
            _ => Ok(refusal("404 Not Found", "no handler for route")),
        }
    }

    fn sign(&self, body: &Value, mood: Mood) -> Result<Answer> {
        let text = |name: &str| body[name].as_str().with_context(|| format!("no {name}"));
        ensure!(text("cert_type")? == "user", "{body}");
        let key = self.folder.join("key.pub");
        let signed = self.folder.join("key-cert.pub");
        fs::remove_file(&signed).ok();
        match mood {
            Mood::OtherKey => {
                let other = self.authority.with_extension("pub");
                fs::copy(other, &key).map(drop)?;
            }
            _ => fs::write(&key, format!("{}\n", text("public_key")?))?,
        }
        let seconds: u64 = text("ttl")?.trim_end_matches('s').parse()?;
        let seconds = if mood == Mood::Longer { seconds + 86_400 } else { seconds };
        let principals = if mood == Mood::OtherPrincipal { "root" } else { text("valid_principals")? };
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-s"]).arg(&self.authority);
        keygen.args(["-I", body["key_id"].as_str().unwrap_or("vault-token-1"), "-n", principals]);
        keygen.args(["-V", &format!("-30s:+{seconds}s")]);
        if mood != Mood::Generous {
            keygen.args(["-O", "clear"]);
            for (name, _) in body["extensions"].as_object().into_iter().flatten() {
                keygen.args(["-O", name]);
            }
        }
        for (name, value) in body["critical_options"].as_object().into_iter().flatten() {
            keygen.args(["-O", &format!("{name}={}", value.as_str().unwrap_or_default())]);
        }
        process::must(keygen.arg(&key))?;
        let signed = fs::read_to_string(signed)?;
        Ok(("200 OK", json!({ "data": { "serial_number": "1", "signed_key": signed } }).to_string()))
    }
}
