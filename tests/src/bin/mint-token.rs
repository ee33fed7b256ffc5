//! Prints a token of the usual subject for the audience that the gateway wants: what a CI system's
//! own command does for `gateway-agent exec --token-command`.

use std::{env, fs};

use anyhow::{Context, Result};
use tests::issuer::Issuer;

fn main() -> Result<()> {
    let file = env::args().nth(1).context("which issuer?")?;
    let issuer = Issuer::import(&serde_json::from_str(&fs::read_to_string(file)?)?)?;
    let audience = env::var("GATEWAY_AUDIENCE").context("GATEWAY_AUDIENCE is not set")?;
    let token = issuer.token("repo:acme/payments:ref:refs/heads/main", &audience);
    println!("{}", token.claim("repository", "acme/payments").claim("ref", "refs/heads/main").mint()?);
    Ok(())
}
